import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { connect } from 'node:tls'
import { promisify } from 'node:util'
import { createVaultClient, splitPem, type VaultClient, VaultError } from '@ares/chassis'
import {
  agentCredentialsFromBootstrap,
  agentCredentialsFromDirectory,
  bootstrap,
  findVaultBinary,
  loginForBootstrap,
  openVault,
  readVaultKeys,
  startVaultServer,
  type VaultServer,
} from './index'

// One server for the whole file, and the tests build on each other: it begins empty.
let dir: string
let server: VaultServer
let rootTokenOfTheStart: string
const at = (...names: string[]) => path.join(dir, ...names)

const options = () => ({
  address: server.address,
  caPem: server.caPem,
  keyFile: at('keys.json'),
  certsDir: at('certs'),
  emqxApiKeyFile: at('emqx', 'api-key'),
  agentCredentialDir: at('agent'),
  brokerNames: ['mqtt.example.org', '192.0.2.7'],
  publicAddress: 'https://vault.example.org:8200',
})

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'ares-bootstrap-'))
  server = await startVaultServer({ binary: await findVaultBinary(), dir: at('vault'), leaveSealed: true })
}, 60_000)

afterAll(async () => {
  await server?.stop()
  await rm(dir, { recursive: true, force: true })
})

it('stores the answer of the initialization, 0600, before it does anything else', async () => {
  await withClient(async (vault) => {
    expect(await openVault({ vault, keyFile: at('keys.json') })).toEqual(['initialize', 'unseal'])
  })
  const keys = await readVaultKeys(at('keys.json'))
  expect(keys).toEqual({ unsealKey: expect.any(String), rootToken: expect.any(String) })
  rootTokenOfTheStart = keys!.rootToken!
  expect((await stat(at('keys.json'))).mode & 0o7777).toBe(0o600)
}, 60_000)

it('can be cut off after any call, also one that was carried out, and the next run goes on', async () => {
  let cuts = 0
  for (let calls = 1; calls < 500; calls += calls < 16 ? 1 : 7) {
    const proxy = await startCuttingProxy(calls)
    try {
      await bootstrap({ ...options(), address: proxy.address })
      break
    } catch (error) {
      expect(error).toBeInstanceOf(VaultError)
      cuts += 1
    } finally {
      proxy.stop()
    }
  }
  expect(cuts).toBeGreaterThan(15)
  await withAdmin(async (vault) => {
    expect(await vault.list('pki/issuers')).toHaveLength(1)
    // The intermediate, and the root that was put beside it so that answers carry the whole chain.
    expect(await vault.list('pki_int/issuers')).toHaveLength(2)
    expect((await vault.read('pki_int/issuer/int-1'))?.data.leaf_not_after_behavior).toBe('err')
  })
}, 120_000)

it('leaves no root token: neither in the file nor in Vault', async () => {
  expect(Object.keys((await readVaultKeys(at('keys.json')))!).sort()).toEqual(['bootstrap', 'unsealKey'])
  await withClient(async (vault) => {
    vault.token = rootTokenOfTheStart
    await expect(vault.lookupSelf()).rejects.toMatchObject({ code: 'token_gone' })
  })
})

it('changes nothing when it runs a second time, and rewrites no file', async () => {
  await bootstrap(options()) // whatever the cuts above have left
  const before = await filesIn(dir)
  expect(await bootstrap(options())).toEqual({ changes: [] })
  expect(await filesIn(dir)).toEqual(before)
})

it('says what it changes when somebody else has changed it, and puts it right', async () => {
  await withAdmin(async (vault) => {
    await vault.write('pki_int/roles/device', { allow_any_name: true })
    await vault.write('sys/policies/acl/listener', { policy: 'path "pki_int/*" { capabilities = ["update"] }' })
  })
  const { changes } = await bootstrap(options())
  expect(changes).toEqual(['write pki_int/roles/device', 'policy listener'])
  expect(await bootstrap(options())).toEqual({ changes: [] })
})

it('makes a root for ten years and an intermediate for five', async () => {
  const [root, intermediate] = splitPem(await readFile(at('certs/ca/full_chain_ca.crt'), 'utf8')).map(
    (pem) => new X509Certificate(pem),
  )
  expect(yearsOf(root!)).toBeCloseTo(10, 1)
  expect(yearsOf(intermediate!)).toBeCloseTo(5, 1)
  expect(intermediate!.verify(root!.publicKey)).toBe(true)
  expect(root!.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' })
})

it('names the issuer in the CRL address, so that it stays right when the intermediate is rotated', async () => {
  const broker = new X509Certificate(await readFile(at('certs/emqx/emqx.crt')))
  const text = broker.raw.toString('latin1')
  const [url = ''] = /https:\/\/vault\.example\.org:8200\/v1\/pki_int\/issuer\/[0-9a-f-]{36}\/crl\/der/.exec(text) ?? []
  expect(broker.infoAccess).toMatch(
    /CA Issuers - URI:https:\/\/vault\.example\.org:8200\/v1\/pki_int\/issuer\/[0-9a-f-]{36}\/der/,
  )
  const issuer = url.split('/').at(-3)
  await withClient(async (vault) => {
    const crl = await vault.read(`pki_int/issuer/${issuer}/crl/pem`)
    expect(crl!.text).toContain('BEGIN X509 CRL')
  })
})

it('puts the names from outside into the broker certificate, and a new one when they change', async () => {
  const names = async () => new X509Certificate(await readFile(at('certs/emqx/emqx.crt'))).subjectAltName
  expect(await names()).toBe(
    'DNS:broker.ares4.internal, DNS:emqx, DNS:localhost, DNS:mqtt.example.org, IP Address:127.0.0.1, IP Address:192.0.2.7',
  )
  const { changes } = await bootstrap({ ...options(), brokerNames: ['other.example.org'] })
  expect(changes).toEqual([
    'write pki_int/roles/broker',
    `write ${at('certs/emqx/emqx.key')}`,
    `write ${at('certs/emqx/emqx.crt')}`,
  ])
  expect(await names()).toContain('DNS:other.example.org')
  await bootstrap(options())
})

it('makes a new broker certificate when key and certificate do not belong together', async () => {
  await writeFile(at('certs/emqx/emqx.key'), 'cut off')
  const { changes } = await bootstrap(options())
  expect(changes).toEqual([`write ${at('certs/emqx/emqx.key')}`, `write ${at('certs/emqx/emqx.crt')}`])
})

it('makes the EMQX key once and writes it as EMQX reads it', async () => {
  const line = await readFile(at('emqx/api-key'), 'utf8')
  await withAdmin(async (vault) => {
    const { key, secret } = (await vault.read('kv/data/ares/emqx-management'))!.data.data as Record<string, string>
    expect(line).toBe(`${key}:${secret}\n`)
  })
  expect((await stat(at('emqx/api-key'))).mode & 0o7777).toBe(0o640)
})

it("keeps the agent's credential while Vault knows it, and gives a new one when not", async () => {
  const { roleId, secretId } = await agentCredentialsFromDirectory(at('agent')).next()
  await withClient(async (vault) => expect((await vault.login(roleId, secretId)).policies).toEqual(['cert-agent']))
  expect((await stat(at('agent/secret-id'))).mode & 0o7777).toBe(0o400)
  await withAdmin((vault) => vault.write('auth/approle/role/cert-agent/secret-id/destroy', { secret_id: secretId }))
  expect((await bootstrap(options())).changes).toEqual([`credential of cert-agent in ${at('agent')}`])
  expect((await agentCredentialsFromDirectory(at('agent')).next()).secretId).not.toBe(secretId)
})

it('gives the agent of the embedded stack a credential for one login, from memory', async () => {
  const source = agentCredentialsFromBootstrap(server, at('keys.json'))
  const { roleId, secretId } = await source.next()
  await withClient(async (vault) => {
    expect((await vault.login(roleId, secretId)).policies).toEqual(['cert-agent'])
    await expect(vault.login(roleId, secretId)).rejects.toMatchObject({ code: 'rejected' })
  })
})

it('says what to do when the key file is lost, broken, or of another server', async () => {
  const elsewhere = { ...options(), keyFile: at('elsewhere.json') }
  await expect(bootstrap(elsewhere)).rejects.toThrow(/elsewhere\.json, .* is missing. Restore it from your backup/)
  await writeFile(elsewhere.keyFile, '{"unsealKey": 12')
  await expect(bootstrap(elsewhere)).rejects.toThrow(/elsewhere\.json is not a file of Vault keys/)
  const foreign = { unsealKey: 'x', bootstrap: { roleId: 'a', secretId: 'b' } }
  await writeFile(elsewhere.keyFile, JSON.stringify(foreign))
  await expect(bootstrap(elsewhere)).rejects.toThrow(/is refused by this Vault server: does it belong to another/)
})

it('runs from the command line, and says that there is nothing to change', async () => {
  const o = options()
  const env = {
    PATH: process.env.PATH,
    ARES_VAULT_ADDR: o.address,
    ARES_VAULT_CA_FILE: server.caFile,
    ARES_VAULT_KEY_STORE: o.keyFile,
    ARES_VAULT_PUBLIC_ADDR: o.publicAddress,
    ARES_CERTS_DIR: o.certsDir,
    ARES_BROKER_NAMES: o.brokerNames.join(','),
    ARES_EMQX_API_KEY_PATH: o.emqxApiKeyFile,
    ARES_AGENT_CREDENTIALS: o.agentCredentialDir,
  }
  const { stdout } = await promisify(execFile)(process.execPath, [...fromSource, 'bootstrap'], { env })
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(lines).toEqual([expect.objectContaining({ message: 'nothing to change', service: 'vault-bootstrap' })])

  const failing = promisify(execFile)(process.execPath, [...fromSource, 'bootstrap'], {
    env: { PATH: process.env.PATH },
  })
  await expect(failing).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('ARES_VAULT_KEY_STORE: is not set'),
  })
})

const fromSource = ['--conditions=source', '--import', 'tsx', path.join(__dirname, 'main.ts')]

async function withClient(work: (vault: VaultClient) => Promise<unknown>): Promise<void> {
  const vault = createVaultClient(server)
  try {
    await work(vault)
  } finally {
    vault.close()
  }
}

async function withAdmin(work: (vault: VaultClient) => Promise<unknown>): Promise<void> {
  const vault = await loginForBootstrap(server, at('keys.json'))
  try {
    await work(vault)
  } finally {
    vault.close()
  }
}

const yearsOf = (certificate: X509Certificate) =>
  (Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)) / (365 * 86_400_000)

/** Everything but Vault's own data and log: which file it is (inode), when it was written, its mode. */
async function filesIn(directory: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const name of await readdir(directory, { recursive: true })) {
    if (name.startsWith('vault')) continue
    const { ino, mtimeMs, mode } = await stat(path.join(directory, name))
    found[name] = `${ino} ${mtimeMs} ${mode.toString(8)}`
  }
  return found
}

/**
 * Plain HTTP before the server. After so many calls it is dead; the last one is still carried out, but its answer is lost:
 * the worst moment for whoever asked. (On sockets: Node's HTTP server does not know the verb LIST.)
 */
async function startCuttingProxy(calls: number): Promise<{ address: string; stop(): void }> {
  let seen = 0
  const sockets = new Set<Socket>()
  const proxy = createServer((client) => {
    if (seen >= calls) return client.destroy()
    const onward = connect({ host: '127.0.0.1', port: server.port, servername: 'localhost', ca: server.caPem })
    sockets.add(client).add(onward)
    for (const socket of [client, onward])
      socket.on('error', () => {}).on('close', () => [client, onward].map((s) => s.destroy()))
    client.on('data', (chunk) => {
      if (/^[A-Z]+ \/v1\/(?!sys\/health)/.test(chunk.toString('latin1'))) seen += 1
      if (seen <= calls) onward.write(chunk)
    })
    onward.on('data', (chunk) => {
      if (seen < calls) client.write(chunk)
      else client.destroy()
    })
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  return {
    address: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    stop() {
      proxy.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
