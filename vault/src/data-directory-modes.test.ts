import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { bootstrap, findVaultBinary, loginForBootstrap, startVaultServer, type VaultServer } from './index'

// Lesson: `chmod 644 certs/*` once took the x bit from a data directory, and the server behind it could write no more.
// Here the worst arrangement is tried: Vault's data and foreign directories lie inside the certs volume itself.
let dir: string
let server: VaultServer
const at = (...names: string[]) => path.join(dir, ...names)
const options = (brokerNames: string[] = []) => ({
  address: server.address,
  caPem: server.caPem,
  keyFile: at('keys.json'),
  certsDir: dir,
  brokerNames,
})

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'ares-modes-'))
  server = await startVaultServer({ binary: await findVaultBinary(), dir: at('vault'), leaveSealed: true })
}, 60_000)

afterAll(async () => {
  await server?.stop()
  await rm(dir, { recursive: true, force: true })
})

it('the bootstrap sets the modes of its own files and directories, and of nothing else', async () => {
  await mkdir(at('ca', 'archive'), { recursive: true, mode: 0o700 })
  await mkdir(at('emqx', 'data'), { recursive: true, mode: 0o711 })
  await writeFile(at('emqx', 'other.key'), 'of somebody else', { mode: 0o600 })
  const before = await modesOf(dir)

  await bootstrap(options())
  await bootstrap(options(['mqtt.example.org'])) // writes key and certificate anew
  await chmod(at('emqx', 'emqx.key'), 0o666)
  expect((await bootstrap(options(['mqtt.example.org']))).changes).toEqual([`mode of ${at('emqx', 'emqx.key')}`])

  const after = await modesOf(dir)
  expect(after).toMatchObject({
    ca: '755',
    'ca/full_chain_ca.crt': '644',
    emqx: '750',
    'emqx/emqx.crt': '644',
    'emqx/emqx.key': '640',
    'keys.json': '600',
  })
  for (const [name, mode] of Object.entries(before)) {
    if (name === 'ca' || name === 'emqx') continue // ours: they were made with other modes above
    expect([name, after[name]]).toEqual([name, mode])
  }
}, 60_000)

it("every directory of Vault's data keeps its x bit, and the server still writes and comes back with it", async () => {
  for (const [name, mode] of Object.entries(await modesOf(at('vault', 'data')))) {
    if ((await stat(at('vault', 'data', name))).isDirectory()) expect([name, mode]).toEqual([name, '700'])
  }
  const vault = await loginForBootstrap(server, at('keys.json'))
  await vault.write('kv/data/ares/written-afterwards', { data: { still: 'here' } })
  vault.close()

  await server.stop()
  const moved = at('vault', 'keys.json') // where a server that is started by us looks for its key
  await writeFile(moved, await readFile(at('keys.json')), { mode: 0o600 })
  server = await startVaultServer({ binary: await findVaultBinary(), dir: at('vault') })
  const again = await loginForBootstrap(server, at('keys.json'))
  expect((await again.read('kv/data/ares/written-afterwards'))?.data.data).toEqual({ still: 'here' })
  again.close()
}, 60_000)

async function modesOf(directory: string): Promise<Record<string, string>> {
  const modes: Record<string, string> = {}
  for (const name of await readdir(directory, { recursive: true })) {
    // The server makes and removes temporary files of its own while we look.
    const found = await stat(path.join(directory, name)).catch(() => undefined)
    if (found) modes[name] = (found.mode & 0o7777).toString(8)
  }
  return modes
}
