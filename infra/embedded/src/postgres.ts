import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '@ares/chassis'
import { Client } from 'pg'
import { endIfOurs, isAlive } from './foreign-process'
import { postgresBinaries, type ServerAccount, serverAccount } from './postgres-binaries'

export interface PostgresOptions {
  /** Holds the cluster and its password; made when it is not there. */
  readonly dir: string
  /** 0 or absent: a free one. */
  readonly port?: number
  readonly database?: string
  readonly role?: string
  /** Server settings over our own, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string | number>>
  /** In our process group: Ctrl-C in the terminal ends it too. False for a stack, which stops things in order. */
  readonly sameGroup?: boolean
  /** What the server says. */
  readonly log?: (text: string) => void
}

export interface Postgres {
  /** Connection string of the database that was asked for. */
  readonly url: string
  urlFor(database: string): string
  readonly port: number
  readonly pid: number
  /** Where the cluster lies: not always `dir`, see `postgresFolder`. */
  readonly folder: string
  /** Settles when the server has ended, for whatever reason. */
  readonly exited: Promise<string>
  /** Ends connections and stops cleanly; when that takes longer than 10 s, without the clean end (the log is replayed at the next start). */
  stop(): Promise<void>
  kill(signal: NodeJS.Signals): void
}

/**
 * Starts a private PostgreSQL: loopback only, password authentication, no socket file, not as root.
 * The cluster is made when there is none. A server that a killed parent left running on the same data is stopped first.
 * @throws with PostgreSQL's own words when it does not start
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const { database = 'ares', role = 'ares', settings = {}, sameGroup = false, log = () => {} } = options
  const account = serverAccount()
  const binaries = postgresBinaries(account)
  const folder = postgresFolder(options.dir)
  makeFolder(folder, account)
  const data = join(folder, 'data')
  const password = initialize({ binaries, folder, data, role, account })
  await stopLeftover(data)

  const port = options.port || (await freePort())
  const flags = Object.entries({
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    shared_preload_libraries: 'pg_stat_statements',
    lc_messages: 'C',
    ...settings,
  }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const { child, exited } = await untilReady(
    () =>
      // A group of its own: Ctrl-C in the terminal is for the parent, who stops things in order.
      spawn(join(binaries, 'postgres'), ['-D', data, ...flags], {
        ...account,
        cwd: tmpdir(),
        detached: !sameGroup,
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    log,
  )

  const urlFor = (name: string) => `postgresql://${role}:${encodeURIComponent(password)}@127.0.0.1:${port}/${name}`
  await createDatabase(urlFor('postgres'), database)
  return {
    url: urlFor(database),
    urlFor,
    port,
    pid: child.pid ?? 0,
    folder,
    exited,
    kill: (signal) => void child.kill(signal),
    stop: async () => {
      child.kill('SIGINT') // PostgreSQL's "fast": ends the sessions, writes a checkpoint
      if (await Promise.race([exited, sleep(10_000, undefined, { ref: false })])) return
      child.kill('SIGQUIT') // "immediate"
      await exited
    },
  }
}

/**
 * Where the cluster of `dir` lies: there, unless we are root and the account that PostgreSQL gets cannot reach it
 * (a checkout below /root); then in a folder of its own under /var/tmp, which outlives a reboot.
 */
export function postgresFolder(dir: string): string {
  const wanted = resolve(dir)
  const account = serverAccount()
  if (!account) return wanted
  makeFolder(wanted, account)
  const reaches = spawnSync('test', ['-w', wanted], { ...account, cwd: '/' }).status === 0
  if (reaches) return wanted
  const name = createHash('sha256').update(wanted).digest('hex').slice(0, 12)
  return join(existsSync('/var/tmp') ? '/var/tmp' : tmpdir(), `ares-postgres-${name}`)
}

function makeFolder(folder: string, account: ServerAccount | undefined): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (account) chownSync(folder, account.uid, account.gid)
}

interface Cluster {
  readonly binaries: string
  readonly folder: string
  readonly data: string
  readonly role: string
  readonly account: ServerAccount | undefined
}

/** Makes the cluster where there is none. @returns the password of its role */
function initialize({ binaries, folder, data, role, account }: Cluster): string {
  const secret = join(folder, 'password')
  const complete = join(folder, 'initialized')
  if (!existsSync(complete)) {
    rmSync(data, { recursive: true, force: true }) // an initdb that was cut off half way
    writeFileSync(secret, randomBytes(18).toString('base64url'), { mode: 0o600 })
    if (account) chownSync(secret, account.uid, account.gid)
    const flags = ['-A', 'scram-sha-256', `--pwfile=${secret}`, '-E', 'UTF8']
    const locale = ['--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C']
    const made = spawnSync(join(binaries, 'initdb'), ['-D', data, '-U', role, ...flags, ...locale, '--no-sync'], {
      ...account,
      cwd: tmpdir(),
      encoding: 'utf8',
    })
    if (made.status !== 0) {
      throw new Error(`PostgreSQL could not make its data folder ${data}: ${made.error?.message ?? made.stderr.trim()}`)
    }
    writeFileSync(complete, '')
  }
  return readFileSync(secret, 'utf8').trim()
}

/** A parent that was killed leaves its server running, and a second one on the same data is refused. */
async function stopLeftover(data: string): Promise<void> {
  const lock = join(data, 'postmaster.pid')
  if (!existsSync(lock)) return
  const pid = Number(readFileSync(lock, 'utf8').split('\n')[0])
  if (!Number.isSafeInteger(pid) || pid <= 1) return
  if (await endIfOurs(pid, ['postgres', data], ['SIGINT', 'SIGQUIT'])) return
  // The id belongs to somebody else by now, which PostgreSQL would take for its old self.
  if (isAlive(pid)) rmSync(lock, { force: true })
}

const READY = 'database system is ready to accept connections'
/** After a SIGKILL of the postmaster its backends need a moment to notice. */
const STILL_ENDING = 'pre-existing shared memory block'

async function untilReady(
  start: () => ChildProcess,
  log: (text: string) => void,
): Promise<{ child: ChildProcess; exited: Promise<string> }> {
  const giveUpAt = Date.now() + 15_000
  for (;;) {
    const child = start()
    let words = ''
    const exited = new Promise<string>((ended) => {
      child.once('exit', (code, signal) => ended(signal ?? `exit code ${code}`))
      child.once('error', (error) => ended(error.message))
    })
    const silent = new Promise<void>((closes) => child.once('close', () => closes()))
    const ready = new Promise<'ready'>((becomes) => {
      child.stderr?.on('data', (chunk: Buffer) => {
        const text = chunk.toString()
        words = (words + text).slice(-4000)
        log(text)
        if (words.includes(READY)) becomes('ready')
      })
    })
    const outcome = await Promise.race([ready, exited])
    if (outcome === 'ready') return { child, exited }
    await Promise.race([silent, sleep(1_000)]) // its last words arrive after its end
    if (!words.includes(STILL_ENDING) || Date.now() > giveUpAt) {
      throw new Error(`PostgreSQL did not start (${outcome}): ${words.trim() || 'it said nothing'}`)
    }
    await sleep(200)
  }
}

async function createDatabase(adminUrl: string, database: string): Promise<void> {
  const client = new Client({ connectionString: adminUrl })
  await client.connect()
  try {
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database])
    if (!rowCount) await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`)
  } finally {
    await client.end()
  }
}
