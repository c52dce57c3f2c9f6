import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import * as tls from 'node:tls'
import {
  CredentialAlarm,
  type CredentialSource,
  commonNameOf,
  createLogger,
  createMetrics,
  createVaultClient,
  credentialsFrom,
  Health,
  type IdentityOptions,
  type Leaf,
  loadCaFile,
  NoFreshCredential,
  ServiceIdentity,
  type VaultClient,
} from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { startTestVault, type TestVault } from './testing/test-vault'
import { issueWrappedSecretId } from './wrapped-secret-id'

// What @ares/chassis does at a real server: it is tested here because starting one is this package's work.

let vault: TestVault
/** May seal the server and wrap what it likes: whoever writes policies can give himself any right. */
let operator: VaultClient
let caPem: string
beforeAll(async () => {
  vault = await startTestVault()
  caPem = await loadCaFile(path.join(vault.certsDir, 'ca', 'full_chain_ca.crt'))
  operator = await makeOperator()
}, 120_000)
afterAll(async () => {
  operator?.close()
  await vault?.stop()
})

const open: Array<{ stop(): Promise<void> }> = []
afterEach(async () => {
  for (const each of open.splice(0)) await each.stop()
})

/** An identity of the service and what it says about itself. */
function prepare(more: Partial<IdentityOptions> = {}) {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const health = new Health()
  const metrics = createMetrics('listener')
  const options: IdentityOptions = {
    name: 'listener',
    vaultAddress: vault.address,
    vaultCaPem: vault.caPem,
    caPem,
    credentials: vault.credentials('listener'),
    logger: createLogger({ service: 'listener', level: 'debug', stream }),
    health,
    metrics,
    startLimitMs: 1_500,
    ...more,
  }
  const create = async () => {
    const identity = await ServiceIdentity.create(options)
    open.push(identity)
    return identity
  }
  return { create, health, log: () => lines.join(''), count: async () => metrics.metrics() }
}

describe('the identity of a service', () => {
  it('has a certificate in its own name that both sides of a connection accept', async () => {
    const { create, health, log, count } = prepare()
    const leaf = (await create()).current()
    const certificate = new X509Certificate(leaf.certificatePem)
    expect(commonNameOf(certificate)).toBe('listener.service.ares4.internal')
    expect(certificate.subjectAltName).toBe(
      'DNS:listener.service.ares4.internal, DNS:listener, DNS:localhost, IP Address:127.0.0.1',
    )
    const hours = (leaf.notAfter.getTime() - Date.now()) / 3_600_000
    expect(hours).toBeGreaterThan(23.9)
    expect(hours).toBeLessThanOrEqual(24)
    await expect(handshake(leaf, leaf)).resolves.toBe('listener.service.ares4.internal')

    expect(await health.report()).toMatchObject({
      ok: true,
      checks: { 'vault-token': { ok: true }, certificate: { ok: true }, 'vault-credential': { ok: true } },
    })
    const metrics = await count()
    expect(metrics).toContain('ares_certificate_renewals_total{result="ok",service="listener"} 1')
    expect(metrics).toContain(
      `ares_certificate_end_timestamp_seconds{service="listener"} ${leaf.notAfter.getTime() / 1_000}`,
    )
    expect(log()).not.toContain('PRIVATE KEY')
    expect(log()).not.toMatch(/\b[sbr]\.[A-Za-z0-9]{24}\b/)
  })

  it('may ask for its own name only', async () => {
    const { vault: client } = await prepare()
      .create()
      .then((identity) => identity)
    const csr = 'irrelevant'
    await expect(
      client.write('pki_int/sign/service', { csr, common_name: 'api.service.ares4.internal' }),
    ).rejects.toMatchObject({ code: 'denied' })
    await expect(prepare({ altNames: ['listener', 'evil'] }).create()).rejects.toMatchObject({ code: 'denied' })
  })

  it('renews its certificate at two thirds of its life and tells who uses it; the key is new', async () => {
    const { create } = prepare({ ttl: '6s' })
    const startedAt = Date.now()
    const identity = await create()
    const first = identity.current()
    const renewed: Leaf[] = []
    identity.onRenewed((leaf) => renewed.push(leaf))
    await until(() => renewed.length > 0)
    expect(Date.now() - startedAt).toBeGreaterThan(2_500)
    expect(Date.now()).toBeLessThan(first.notAfter.getTime())
    expect(identity.current()).toBe(renewed.at(-1))
    expect(renewed[0]?.serial).not.toBe(first.serial)
    expect(renewed[0]?.keyPem).not.toBe(first.keyPem)
    expect(renewed[0]?.notAfter.getTime()).toBeGreaterThan(first.notAfter.getTime())
  })

  it('does not trust a Vault whose CA is not in its CA file', async () => {
    const other = await startOtherCa()
    await expect(prepare({ caPem: other }).create()).rejects.toThrow(
      /was issued by .*is ARES_CA_FILE that of this Vault\?/,
    )
  })

  it('keeps what it has while Vault is sealed, says so, and goes on when it is back', async () => {
    const { create, health } = prepare({ ttl: '8s' })
    const identity = await create()
    const first = identity.current()
    await operator.write('sys/seal', {})
    try {
      await expect(identity.renew()).rejects.toMatchObject({ code: 'sealed' })
      expect(identity.current()).toBe(first)
      const { checks, ok } = await health.report()
      expect(ok).toBe(true)
      expect(checks.certificate?.detail).toMatch(/good until .*; not renewed: .*sealed/)
    } finally {
      await unseal()
    }
    await until(() => identity.current() !== first)
    await until(async () => (await health.report()).checks.certificate?.detail?.includes('not renewed') === false)
  })

  it('logs in again when its token is gone', async () => {
    const { create, health, count } = prepare()
    const identity = await create()
    const token = identity.vault.token
    await identity.vault.revokeSelf()
    // Whoever sees it first wakes the session: nobody has to wait for the next renewal.
    await expect(identity.renew()).rejects.toMatchObject({ code: 'token_gone' })
    await until(() => identity.vault.token !== undefined && identity.vault.token !== token)
    await identity.renew()
    expect((await health.report()).ok).toBe(true)
    expect(await count()).toContain('ares_vault_logins_total{result="ok",service="listener"} 2')
  })

  it('keeps a periodic token alive by its own renewals', async () => {
    const role = 'auth/approle/role/listener'
    const before = (await vault.adminClient.read(role))?.data.token_period
    await vault.adminClient.write(role, { token_period: 3 })
    try {
      const identity = await prepare().create()
      const token = identity.vault.token
      await new Promise((resolve) => setTimeout(resolve, 5_000))
      expect(identity.vault.token).toBe(token)
      await identity.vault.lookupSelf()
    } finally {
      await vault.adminClient.write(role, { token_period: before })
    }
  })

  it('waits for a Vault that is sealed when it starts', async () => {
    // Taken before: a sealed Vault gives no credentials.
    const credential = await vault.credentials('listener').next()
    const credentials: CredentialSource = { next: async () => credential }
    await operator.write('sys/seal', {})
    const creating = prepare({ credentials, startLimitMs: 20_000 }).create()
    creating.catch(() => {}) // looked at below
    await new Promise((resolve) => setTimeout(resolve, 600))
    await unseal()
    expect((await creating).current().commonName).toBe('listener.service.ares4.internal')
  })

  it('fails at once and by name when the credential is refused', async () => {
    const credentials: CredentialSource = { next: async () => ({ roleId: 'x', secretId: 'y' }) }
    await expect(prepare({ credentials }).create()).rejects.toMatchObject({
      code: 'rejected',
      message: expect.stringContaining('invalid role or secret ID'),
    })
  })

  it('gives its token back when it stops', async () => {
    const identity = await ServiceIdentity.create({
      ...({
        name: 'listener',
        vaultAddress: vault.address,
        vaultCaPem: vault.caPem,
        caPem,
        credentials: vault.credentials('listener'),
        logger: createLogger({ service: 'listener', level: 'error' }),
        health: new Health(),
        metrics: createMetrics('listener'),
      } satisfies IdentityOptions),
    })
    const token = identity.vault.token
    await identity.stop()
    const client = createVaultClient({ address: vault.address, caPem: vault.caPem, token })
    await expect(client.lookupSelf()).rejects.toMatchObject({ code: 'token_gone' })
    client.close()
  })
})

describe('credentials from a directory', () => {
  let directory: string
  const client = () => createVaultClient({ address: vault.address, caPem: vault.caPem })
  const deliver = async (wrapToken?: string) => {
    const credential = await issueWrappedSecretId(vault.adminClient, 'listener')
    await writeFile(path.join(directory, 'role-id'), credential.roleId)
    await writeFile(path.join(directory, 'wrapped-secret-id'), `${wrapToken ?? credential.wrapToken}\n`)
    return credential
  }
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ares-credentials-'))
  })
  afterEach(() => rm(directory, { recursive: true }))

  it('log a service in, once for each delivery', async () => {
    await deliver()
    const opener = client()
    const source = credentialsFrom(directory, { client: opener, service: 'listener', graceMs: 300 })
    const identity = await prepare({ credentials: source }).create()
    expect(identity.current().commonName).toBe('listener.service.ares4.internal')
    await expect(source.next()).rejects.toBeInstanceOf(NoFreshCredential)
    await deliver()
    expect((await source.next()).secretId).toMatch(/^[0-9a-f-]{36}$/)
    opener.close()
  })

  it('that somebody else opened are an alarm: log, health and metric; a fresh one ends it', async () => {
    const { wrapToken } = await deliver()
    const thief = client()
    await thief.unwrap(wrapToken)
    thief.close()
    const opener = client()
    const { create, health, log, count } = prepare({
      credentials: credentialsFrom(directory, { client: opener, service: 'listener', graceMs: 300 }),
      startLimitMs: 20_000,
    })
    const creating = create()
    creating.catch(() => {}) // looked at below
    await until(() => log().includes('ALARM'))
    expect((await health.report()).checks['vault-credential']).toMatchObject({ ok: false })
    expect(await count()).toContain('ares_vault_credential_alarms_total{service="listener"} 1')
    expect(log()).not.toContain(wrapToken)
    await deliver()
    await creating
    expect((await health.report()).ok).toBe(true)
    expect(log().match(/ALARM/g)).toHaveLength(1)
    opener.close()
  })

  it('that were not made for this service are not even opened', async () => {
    const { wrapInfo } = await operator.write('sys/wrapping/wrap', { secret_id: 'planted' }, { wrapTtl: '60s' })
    const planted = wrapInfo?.token ?? ''
    await deliver(planted)
    const opener = client()
    await expect(
      credentialsFrom(directory, { client: opener, service: 'listener', graceMs: 300 }).next(),
    ).rejects.toThrow('was not made for listener but by sys/wrapping/wrap')
    await expect(
      credentialsFrom(directory, { client: opener, service: 'listener', graceMs: 300 }).next(),
    ).rejects.toBeInstanceOf(CredentialAlarm)
    await opener.unwrap(planted) // still whole
    opener.close()
  })
})

describe('the client at a real server', () => {
  it('lists, also where there is nothing', async () => {
    const api = await vault.clientOf('api')
    expect((await api.list('pki_int/certs')).length).toBeGreaterThan(0)
    await expect(api.list('pki_int/certs/revoked')).resolves.toBeInstanceOf(Array)
    await expect(api.list('kv/metadata/ares')).rejects.toMatchObject({ code: 'denied' })
    api.close()
  })

  it('tells a dead token from a thing that is not allowed', async () => {
    const listener = await vault.clientOf('listener')
    await expect(listener.read('kv/data/ares/emqx-management')).rejects.toMatchObject({ code: 'denied' })
    await listener.revokeSelf()
    await expect(listener.read('kv/data/ares/emqx-management')).rejects.toMatchObject({ code: 'token_gone' })
    listener.close()
  })

  it('reads raw answers', async () => {
    const client = createVaultClient({ address: vault.address, caPem: vault.caPem })
    expect((await client.read('pki_int/ca_chain'))?.text).toContain('BEGIN CERTIFICATE')
    expect((await client.health()).state).toBe('active')
    client.close()
  })
})

async function makeOperator(): Promise<VaultClient> {
  const { adminClient, address } = vault
  const policy =
    'path "sys/seal" { capabilities = ["update", "sudo"] }\npath "sys/wrapping/wrap" { capabilities = ["update"] }'
  await adminClient.write('sys/policies/acl/operator', { policy })
  await adminClient.write('auth/approle/role/operator', { token_policies: ['operator'], token_no_default_policy: true })
  const roleId = String((await adminClient.read('auth/approle/role/operator/role-id'))?.data.role_id)
  const { wrapInfo } = await adminClient.write('auth/approle/role/operator/secret-id', {}, { wrapTtl: '60s' })
  const client = createVaultClient({ address, caPem: vault.caPem })
  const { data } = await client.unwrap(wrapInfo?.token ?? '')
  client.token = (await client.login(roleId, String(data.secret_id))).token
  return client
}

async function unseal(): Promise<void> {
  const client = createVaultClient({ address: vault.address, caPem: vault.caPem })
  await client.unseal(vault.unsealKey)
  await until(async () => (await client.health()).state === 'active')
  client.close()
}

/** A bundle that is right in itself, and of somebody else. */
async function startOtherCa(): Promise<string> {
  const { TestAuthority } = await import('@ares/chassis/testing')
  return (await TestAuthority.create('Other')).caPem
}

/** @returns the name that each side saw of the other, when both accept */
async function handshake(server: Leaf, client: Leaf): Promise<string> {
  const root = server.caPem
  const listener = tls.createServer({
    cert: server.chainPem,
    key: server.keyPem,
    ca: root,
    requestCert: true,
    rejectUnauthorized: true,
  })
  const accepted = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as { port: number }
  const socket = tls.connect({
    port,
    host: '127.0.0.1',
    servername: 'listener',
    ca: root,
    cert: client.chainPem,
    key: client.keyPem,
  })
  await once(socket, 'secureConnect')
  const [seen] = await accepted
  const name = seen.getPeerX509Certificate()
  socket.destroy()
  seen.destroy()
  listener.close()
  return (name && commonNameOf(name)) ?? 'nobody'
}
