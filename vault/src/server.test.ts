import { once } from 'node:events'
import { access, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createVaultClient } from '@ares/chassis'
import { ensureServerCertificate, findVaultBinary, readVaultKeys, startVaultServer, type VaultServer } from './index'

let dir: string
let binary: string
let server: VaultServer
const at = (...names: string[]) => path.join(dir, ...names)
const start = (port?: number) => startVaultServer({ binary, dir: at('vault'), port })

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'ares-server-'))
  binary = await findVaultBinary()
  server = await start()
}, 60_000)

afterAll(async () => {
  await server?.stop()
  await rm(dir, { recursive: true, force: true })
})

it('serves when it says so: a write right after the start succeeds', async () => {
  const { rootToken } = (await readVaultKeys(server.keyFile))!
  const vault = createVaultClient({ ...server, token: rootToken })
  await vault.write('sys/mounts/kept', { type: 'kv' })
  await vault.write('kept/note', { text: 'kept' })
  vault.close()
})

it('keeps unseal key and TLS key 0600, and its data to itself', async () => {
  const modes = await Promise.all(
    ['keys.json', 'tls/server.key', 'server.log', 'data'].map(
      async (name) => (await stat(at('vault', name))).mode & 0o7777,
    ),
  )
  expect(modes.map((mode) => mode.toString(8))).toEqual(['600', '600', '600', '700'])
})

it('is known by its own certificate only to whoever has its CA', async () => {
  const stranger = createVaultClient({ address: server.address })
  await expect(stranger.health()).rejects.toMatchObject({ code: 'unreachable' })
  stranger.close()
  for (const host of ['localhost', '127.0.0.1']) {
    const vault = createVaultClient({ address: `https://${host}:${server.port}`, caPem: server.caPem })
    expect((await vault.health()).state).toBe('active')
    vault.close()
  }
})

it('says that another server uses the folder', async () => {
  await expect(start()).rejects.toThrow(
    /Another Vault server is using .*vault: stop it first, or choose another folder/,
  )
})

it('says so as well when the other server was not started by us, from the lock of the store', async () => {
  await rename(at('vault', 'server.pid'), at('vault', 'server.pid.away'))
  await expect(start()).rejects.toThrow(/Another Vault server is using .*vault: stop it first/)
  await rename(at('vault', 'server.pid.away'), at('vault', 'server.pid'))
}, 60_000)

it('says which port is taken', async () => {
  const other = createServer()
  other.listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  const elsewhere = startVaultServer({ binary, dir: at('elsewhere'), port })
  await expect(elsewhere).rejects.toThrow(`Port ${port} for the Vault server is taken: free it, or choose another.`)
  other.close()
})

it('keeps data and certificate between starts, also on another port', async () => {
  await server.stop()
  await expect(access(at('vault', 'server.pid'))).rejects.toMatchObject({ code: 'ENOENT' })
  const before = server
  server = await start()
  expect(server.caPem).toBe(before.caPem)
  const { rootToken } = (await readVaultKeys(server.keyFile))!
  const vault = createVaultClient({ ...server, token: rootToken })
  expect((await vault.read('kept/note'))?.data).toEqual({ text: 'kept' })
  vault.close()
}, 60_000)

it('comes back after a kill -9 and a stale pid file', async () => {
  process.kill(server.pid, 'SIGKILL')
  expect(await server.ended).toMatch(/SIGKILL/)
  server = await start()
}, 60_000)

it('says what to do when the unseal key is lost, or is that of another store', async () => {
  await server.stop()
  await rename(server.keyFile, at('key'))
  await expect(start()).rejects.toThrow(
    /is sealed and .*keys\.json, which holds its unseal key, is missing\. Restore that file/,
  )
  await writeFile(server.keyFile, JSON.stringify({ unsealKey: Buffer.alloc(33).toString('base64') }))
  await expect(start()).rejects.toThrow(/The unseal key in .*keys\.json does not open this Vault server/)
  await rename(at('key'), server.keyFile)
  server = await start()
}, 60_000)

it('refuses to initialize an empty store over the keys of an earlier one', async () => {
  await server.stop()
  await rename(at('vault', 'data'), at('data'))
  await expect(start()).rejects.toThrow(/is empty, but .*keys\.json holds the keys of an earlier one/)
  await rm(at('vault', 'data'), { recursive: true })
  await rename(at('data'), at('vault', 'data'))
}, 60_000)

it('shows the end of the log when the server does not start', async () => {
  const tls = { caFile: at('vault/tls/ca.crt'), certFile: at('vault/tls/ca.crt'), keyFile: at('vault/tls/server.key') }
  const failing = startVaultServer({ binary, dir: at('elsewhere'), tls })
  await expect(failing).rejects.toThrow(
    /The Vault server ended \(exit code 1\)\. The end of .*server\.log:\n.*private key/s,
  )
})

it('makes a new server certificate when a name is missing, and keeps it otherwise', async () => {
  const wanted = { dir: at('tls'), names: ['vault', '127.0.0.1'] }
  expect((await ensureServerCertificate(wanted)).made).toBe(true)
  expect((await ensureServerCertificate(wanted)).made).toBe(false)
  expect((await ensureServerCertificate({ ...wanted, names: ['vault', 'vault.example.org'] })).made).toBe(true)
  await writeFile(at('tls', 'server.key'), await readFile(at('vault', 'tls', 'server.key')))
  expect((await ensureServerCertificate(wanted)).made).toBe(true)
})
