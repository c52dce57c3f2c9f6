import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client } from 'pg'

export interface MigrateOptions {
  readonly connectionString: string
  /** Folder with one folder per migration; default: the package's own `prisma/migrations`. */
  readonly dir?: string
  readonly log?: (line: string) => void
}

/** Works from src/ and from dist/: both lie beside prisma/. */
const OWN_MIGRATIONS = join(__dirname, '../prisma/migrations')

/**
 * Applies what is not applied yet and records it exactly as `prisma migrate deploy` does, so that either can go on where
 * the other stopped. Needs neither the Prisma CLI nor its engine. Several processes may call it at once: one does the
 * work, the others wait for it.
 * @returns names of the migrations applied now
 * @throws when a migration fails, or an earlier one is recorded as failed
 */
export async function migrate(options: MigrateOptions): Promise<string[]> {
  const { connectionString, dir = OWN_MIGRATIONS, log = () => {} } = options
  const database = new Client({ connectionString })
  await database.connect()
  try {
    await database.query('SELECT pg_advisory_lock($1)', [PRISMA_LOCK])
    await database.query(TABLE)
    const done = await recorded(database)
    const applied: string[] = []
    for (const name of migrationsIn(dir)) {
      const sql = readFileSync(join(dir, name, 'migration.sql'))
      const checksum = createHash('sha256').update(sql).digest('hex')
      const before = done.get(name)
      if (before === undefined) {
        await apply(database, { name, sql: sql.toString('utf8'), checksum })
        log(`applied migration ${name}`)
        applied.push(name)
      } else if (before !== checksum) {
        log(`migration ${name} was changed after it was applied: a new database will differ from this one`)
      }
    }
    return applied
  } finally {
    await database.end() // also releases the lock
  }
}

/** The advisory lock that Prisma's own engine takes. */
const PRISMA_LOCK = 72707369

const TABLE = `CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)`

interface Recorded {
  readonly migration_name: string
  readonly checksum: string
  readonly finished_at: Date | null
}

/** Checksum by name of what is applied. */
async function recorded(database: Client): Promise<Map<string, string>> {
  const { rows } = await database.query<Recorded>(
    'SELECT migration_name, checksum, finished_at FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at',
  )
  const failed = rows.find((row) => row.finished_at === null)
  if (failed) {
    throw new Error(
      `The migration ${failed.migration_name} was begun and did not finish. See its logs in _prisma_migrations, mend the database, then run: prisma migrate resolve`,
    )
  }
  return new Map(rows.map((row) => [row.migration_name, row.checksum]))
}

function migrationsIn(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(dir, entry.name, 'migration.sql')))
    .map((entry) => entry.name)
    .sort()
}

async function apply(database: Client, migration: { name: string; sql: string; checksum: string }): Promise<void> {
  const id = randomUUID()
  await database.query('INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ($1, $2, $3)', [
    id,
    migration.checksum,
    migration.name,
  ])
  try {
    await database.query(migration.sql) // the simple protocol: one transaction for the whole file
  } catch (error) {
    const cause = error instanceof Error ? error : new Error(String(error))
    await database.query('UPDATE _prisma_migrations SET logs = $2 WHERE id = $1', [id, cause.stack])
    throw new Error(`The migration ${migration.name} failed: ${cause.message}`, { cause })
  }
  await database.query('UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = $1', [id])
}
