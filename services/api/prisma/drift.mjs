// Do the migrations make what schema.prisma describes?   npm run drift      exit code 0: yes, 1: no
// Uses the server of DATABASE_URL when it is set (shadow databases are made and dropped there), else one of its own.
// It also makes a drift on purpose and demands that it is seen: a dead engine once made this check pass in silence.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NO_DRIFT = 0
const DRIFT = 2

const here = dirname(fileURLToPath(import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), 'ares-drift-'))
chmodSync(scratch, 0o711) // as root, PostgreSQL runs under another account and has to get through
const server = process.env.DATABASE_URL ? undefined : await ownServer()
try {
  const url = process.env.DATABASE_URL ?? server.url
  const schema = join(here, 'schema.prisma')
  const found = diff(url, schema)
  if (found.status !== NO_DRIFT) {
    fail(`The migrations do not make what schema.prisma describes. Make one: npx prisma migrate dev\n${found.text}`)
  }
  const other = join(scratch, 'schema.prisma')
  writeFileSync(other, `${readFileSync(schema, 'utf8')}\nmodel DriftOnPurpose {\n  id Int @id\n}\n`)
  const made = diff(url, other)
  if (made.status !== DRIFT) {
    fail(
      `A drift made on purpose ended with ${made.status} instead of ${DRIFT}: this check sees nothing.\n${made.text}`,
    )
  }
  if (!process.exitCode) console.log('drift: none; a drift made on purpose is seen')
} finally {
  await server?.stop()
  rmSync(scratch, { recursive: true, force: true })
}

function diff(url, schema) {
  const prisma = createRequire(import.meta.url).resolve('prisma/build/index.js')
  const flags = ['migrate', 'diff', '--from-migrations', join(here, 'migrations'), '--to-schema', schema, '--exit-code']
  const run = spawnSync(process.execPath, [prisma, ...flags], {
    cwd: dirname(here),
    // The flags of this process (tsx, conditions) are not for Prisma.
    env: { ...process.env, NODE_OPTIONS: '', DATABASE_URL: url },
    encoding: 'utf8',
  })
  return { status: run.status, text: `${run.stdout}${run.stderr}` }
}

async function ownServer() {
  const { startPostgres } = await import('@ares/embedded')
  return startPostgres({ dir: join(scratch, 'postgres'), settings: { fsync: 'off' } })
}

function fail(message) {
  console.error(message)
  process.exitCode = 1
}
