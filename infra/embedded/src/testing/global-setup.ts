import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endIfOurs, isAlive } from '../foreign-process'
import { type Postgres, startPostgres } from '../postgres'
import { DATABASE_SERVER, DATABASE_TEMPLATE } from './database'

/** What the teardown has to take down: both run in the process that runs jest. */
export interface TestServer {
  readonly postgres: Postgres
  readonly dir: string
}
declare global {
  var aresTestServer: TestServer | undefined
}

const PREFIX = 'ares-jest-'
const MIGRATE = join(__dirname, '../../../../services/api/src/migrate')

/** One PostgreSQL for the whole jest run, with a template database that has the migrations of @ares/api. */
export default async function setup(): Promise<void> {
  await removeLeftovers()
  const dir = mkdtempSync(join(tmpdir(), PREFIX))
  chmodSync(dir, 0o711) // as root, PostgreSQL runs under another account and has to get through
  writeFileSync(join(dir, 'owner'), String(process.pid))
  const postgres = await startPostgres({
    dir: join(dir, 'postgres'),
    database: 'template_ares',
    sameGroup: true,
    // Nothing here outlives the run, so nothing needs to reach the disk.
    settings: { fsync: 'off', full_page_writes: 'off', synchronous_commit: 'off', max_connections: 200 },
  })
  globalThis.aresTestServer = { postgres, dir }
  process.once('exit', () => postgres.kill('SIGQUIT'))
  await applyMigrations(postgres.url)
  process.env[DATABASE_SERVER] = postgres.urlFor('postgres')
  process.env[DATABASE_TEMPLATE] = 'template_ares'
}

async function applyMigrations(connectionString: string): Promise<void> {
  if (!existsSync(`${MIGRATE}.ts`)) return
  // By path, not by name: @ares/api has us in its tests, and a package cannot stand before and behind another.
  const { migrate } = (await import(MIGRATE)) as { migrate(o: { connectionString: string }): Promise<unknown> }
  await migrate({ connectionString })
}

/** A run that was killed leaves its server and folder. */
async function removeLeftovers(): Promise<void> {
  for (const name of readdirSync(tmpdir()).filter((entry) => entry.startsWith(PREFIX))) {
    const dir = join(tmpdir(), name)
    const owner = numberIn(join(dir, 'owner'))
    if (owner === undefined || isAlive(owner)) continue
    const server = numberIn(join(dir, 'postgres/data/postmaster.pid'))
    if (server) await endIfOurs(server, ['postgres', dir], ['SIGQUIT', 'SIGKILL'])
    rmSync(dir, { recursive: true, force: true })
  }
}

function numberIn(file: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(file, 'utf8'), 10) || undefined
  } catch {
    return undefined
  }
}
