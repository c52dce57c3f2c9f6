import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  createLogger,
  createMetrics,
  createVaultClient,
  credentialsFrom,
  Health,
  newKeyAndCsr,
  type VaultClient,
} from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { replaceFile } from './file-replacement'
import { agentCredentialsFromBootstrap, CertsVolume, issueWrappedSecretId, VaultAgent } from './index'
import { startTestVault, type TestVault } from './testing/test-vault'

let vault: TestVault
let dir: string
let agent: VaultAgent
let nobody: VaultClient
const health = new Health()
const metrics = createMetrics('vault-agent')
let log = ''
const at = (...names: string[]) => path.join(dir, ...names)

beforeAll(async () => {
  vault = await startTestVault()
  dir = await mkdtemp(path.join(tmpdir(), 'ares-agent-'))
  nobody = createVaultClient(vault)
  const stream = new Writable({
    write(chunk, _, done) {
      log += chunk
      done()
    },
  })
  agent = await VaultAgent.start({
    address: vault.address,
    caPem: vault.caPem,
    credentials: agentCredentialsFromBootstrap(vault, vault.keyFile),
    certsDir: vault.certsDir,
    targets: [
      { service: 'api', directory: at('api') },
      { service: 'listener', directory: at('listener-1') },
      { service: 'listener', directory: at('listener-2') },
    ],
    deliverEveryMs: 50,
    renewEveryMs: 50,
    logger: createLogger({ service: 'vault-agent', stream }),
    health,
    metrics,
  })
}, 60_000)

afterAll(async () => {
  await agent?.stop()
  nobody?.close()
  await vault?.stop()
  await rm(dir, { recursive: true, force: true })
})

it('delivers role-id and wrapped-secret-id, 0400, to each directory', async () => {
  for (const name of ['api', 'listener-1', 'listener-2']) {
    await until(() => read(name, 'wrapped-secret-id'))
    for (const file of ['role-id', 'wrapped-secret-id']) {
      expect((await stat(at(name, file))).mode & 0o7777).toBe(0o400)
    }
  }
  expect(await read('listener-1', 'wrapped-secret-id')).not.toBe(await read('listener-2', 'wrapped-secret-id'))
})

it('a service logs in with it, and again after a restart, because a fresh one follows', async () => {
  for (let start = 1; start <= 3; start++) {
    const used = await until(() => read('api', 'wrapped-secret-id'))
    const { roleId, secretId } = await credentialsFrom(at('api'), { client: nobody, service: 'api' }).next()
    expect((await nobody.login(roleId, secretId)).policies).toEqual(['api'])
    await until(async () => (await read('api', 'wrapped-secret-id')) !== used)
  }
})

it('leaves alone what has not been used', async () => {
  const before = await read('listener-1', 'wrapped-secret-id')
  await sleep(200) // four looks
  expect(await read('listener-1', 'wrapped-secret-id')).toBe(before)
})

it('replaces what has run out of half its time', async () => {
  const before = await read('listener-1', 'wrapped-secret-id')
  const sixMinutesAgo = new Date(Date.now() - 6 * 60_000)
  await utimes(at('listener-1', 'wrapped-secret-id'), sixMinutesAgo, sixMinutesAgo)
  await until(async () => (await read('listener-1', 'wrapped-secret-id')) !== before)
})

it('does not take the credential of one service for that of another', async () => {
  const { wrapToken } = await issueWrappedSecretId(vault.adminClient, 'authorizer')
  await replaceFile(at('listener-2', 'wrapped-secret-id'), wrapToken, { mode: 0o400 })
  await until(async () => (await read('listener-2', 'wrapped-secret-id')) !== wrapToken)
  await until(async () => log.includes('ALARM: a credential of another role'))
  const counted = await metrics.metrics()
  expect(counted).toMatch(/ares_credentials_delivered_total\{service="listener",reason="foreign"[^}]*\} 1/)
  // One for each login that this test made as api.
  expect(counted).toMatch(/ares_credentials_delivered_total\{service="api",reason="opened"[^}]*\} 3/)
})

it('goes on with a new login when its token is gone', async () => {
  const before = await read('api', 'wrapped-secret-id')
  await agent.vault.revokeSelf()
  await nobody.unwrap(before)
  await until(async () => (await read('api', 'wrapped-secret-id')) !== before)
  await until(async () => (await health.report()).ok)
}, 60_000)

it('hands over wrapped secret ids in memory, as the embedded stack needs them', async () => {
  const { roleId, wrapToken } = await issueWrappedSecretId(agent.vault, 'authorizer')
  const { data } = await nobody.unwrap(wrapToken)
  expect((await nobody.login(roleId, String(data.secret_id))).policies).toEqual(['authorizer'])
})

it('leaves a broker certificate alone that has more than two fifths of its life left', async () => {
  const volume = new CertsVolume({ dir: vault.certsDir })
  const { ino, mtimeMs } = await stat(volume.brokerCertificateFile)
  await sleep(200)
  expect(await stat(volume.brokerCertificateFile)).toMatchObject({ ino, mtimeMs })
})

it('replaces a broker certificate that has less than a third of its life left', async () => {
  const volume = new CertsVolume({ dir: vault.certsDir })
  const { keyPem, csrPem } = await newKeyAndCsr('ignored')
  // Begins eleven minutes ago, as every certificate here, and ends in two: a sixth of its life is left.
  const { data } = await vault.adminClient.write('pki_int/sign/broker', {
    csr: csrPem,
    common_name: 'broker.ares4.internal',
    alt_names: 'broker.ares4.internal,emqx,localhost',
    ip_sans: '127.0.0.1',
    ttl: '120s',
  })
  await volume.writeBroker({ keyPem, chainPem: `${data.certificate}\n${data.issuing_ca}\n` })

  await until(async () => {
    const files = await volume.readBroker()
    const certificate = new X509Certificate(files!.chainPem)
    const daysLeft = (Date.parse(certificate.validTo) - Date.now()) / 86_400_000
    return daysLeft > 29 && certificate.checkPrivateKey(createPrivateKey(files!.keyPem))
  })
  expect((await stat(volume.brokerKeyFile)).mode & 0o7777).toBe(0o640)
  expect((await stat(volume.brokerCertificateFile)).mode & 0o7777).toBe(0o644)
})

it('adds an intermediate that it does not know yet to the CA bundle before it uses it', async () => {
  const volume = new CertsVolume({ dir: vault.certsDir })
  const { rootPem, intermediatePems } = (await volume.readCa())!
  await volume.writeCa(rootPem, [])
  await until(async () => (await volume.readCa())!.intermediatePems[0] === intermediatePems[0])
})

it('shows what it cannot do in health, and heals when it can again', async () => {
  const volume = new CertsVolume({ dir: vault.certsDir })
  const { rootPem, intermediatePems } = (await volume.readCa())!
  await rm(volume.caFile)
  await until(async () => !(await health.report()).checks['broker-certificate']?.ok)
  expect((await health.report()).checks['broker-certificate']?.detail).toMatch(/full_chain_ca.crt does not hold a root/)
  await volume.writeCa(rootPem, intermediatePems)
  await until(async () => (await health.report()).ok)
}, 60_000)

it('writes no token, secret id or key to its log', async () => {
  expect(log).toContain('credentials delivered')
  for (const name of ['api', 'listener-1', 'listener-2'])
    expect(log).not.toContain(await read(name, 'wrapped-secret-id'))
  expect(log).not.toContain(agent.vault.token)
  expect(log).not.toContain('PRIVATE KEY')
})

const read = (name: string, file: string) => readFile(at(name, file), 'utf8').catch(() => '')
