import { X509Certificate } from 'node:crypto'
import { createVaultClient, newKeyAndCsr, type VaultAnswer, type VaultClient } from '@ares/chassis'
import { SERVICE_NAMES } from '@ares/proto'
import { issueSecretId } from './index'
import { startTestVault, type TestVault } from './testing/test-vault'

const DEVICE = '5f0f4a52-4a6c-4be3-9b7a-0d7b7f6f3c11.device.ares4.internal'

let vault: TestVault
let csr: string
const clients = new Map<string, VaultClient>()

beforeAll(async () => {
  vault = await startTestVault()
  csr = (await newKeyAndCsr('whatever the CSR says')).csrPem
  for (const service of SERVICE_NAMES) clients.set(service, await vault.clientOf(service))
  const agent = createVaultClient({ address: vault.address, caPem: vault.caPem })
  const { roleId, secretId } = await issueSecretId(vault.adminClient, 'cert-agent')
  agent.token = (await agent.login(roleId, secretId)).token
  clients.set('cert-agent', agent)
}, 60_000)

afterAll(async () => {
  for (const client of clients.values()) client.close()
  await vault?.stop()
})

const as = (name: string): VaultClient => clients.get(name)!
const refused = (call: Promise<unknown>) => expect(call).rejects.toMatchObject({ code: 'denied', status: 403 })
const certificateOf = (answer: VaultAnswer) => new X509Certificate(String(answer.data.certificate))
const sign = (name: string, role: string, data: object) => as(name).write(`pki_int/sign/${role}`, { csr, ...data })
const ownNames = (service: string) => ({
  common_name: `${service}.service.ares4.internal`,
  alt_names: `${service}.service.ares4.internal,${service},localhost`,
  ip_sans: '127.0.0.1',
})

describe.each([...SERVICE_NAMES])('%s', (service) => {
  it('gets a certificate in its own name, for a day, as server and client', async () => {
    const certificate = certificateOf(await sign(service, 'service', { ...ownNames(service), ttl: '999h' }))
    expect(certificate.subject).toBe(`CN=${service}.service.ares4.internal`)
    expect(certificate.subjectAltName!.split(', ').sort()).toEqual(
      [`DNS:${service}`, `DNS:${service}.service.ares4.internal`, 'DNS:localhost', 'IP Address:127.0.0.1'].sort(),
    )
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
    expect(hoursUntil(certificate.validTo)).toBeLessThanOrEqual(24)
  })

  it('may name an end only through ttl: not_after, which walks past the role, is refused', async () => {
    await refused(sign(service, 'service', { ...ownNames(service), not_after: '2035-01-01T00:00:00Z' }))
  })

  it.each(SERVICE_NAMES.filter((other) => other !== service))('does not get a certificate of %s', async (other) => {
    await refused(sign(service, 'service', ownNames(other)))
    await refused(sign(service, 'service', { ...ownNames(service), alt_names: `${other},localhost` }))
    await refused(sign(service, 'service', { ...ownNames(service), common_name: [ownNames(other).common_name] }))
    await refused(
      sign(service, 'service', { ...ownNames(service), common_name: ownNames(service).common_name.toUpperCase() }),
    )
  })

  it('looks at, renews and revokes its own token, and nothing else of tokens', async () => {
    expect((await as(service).lookupSelf()).data.policies).toEqual([service])
    expect((await as(service).renewSelf()).leaseSeconds).toBe(3600)
    await refused(as(service).write('auth/token/create', {}))
    const short = await vault.clientOf(service)
    await short.revokeSelf()
    await expect(short.lookupSelf()).rejects.toMatchObject({ code: 'token_gone' })
    short.close()
  })

  it('cannot reach around its policy', async () => {
    const client = as(service)
    await refused(client.write('pki_int/issuer/default/sign/service', { csr, ...ownNames(service) }))
    await refused(client.write('pki_int/issue/service', ownNames(service)))
    await refused(client.write('pki_int/sign-verbatim', { csr }))
    await refused(client.write('pki_int/sign-verbatim/service', { csr }))
    await refused(sign(service, 'broker', { common_name: 'broker.ares4.internal' }))
    await refused(client.write('pki/root/sign-intermediate', { csr, common_name: 'x' }))
    await refused(client.write('pki_int/roles/device', { allow_any_name: true }))
    await refused(client.write('sys/mounts/other', { type: 'kv' }))
    await refused(client.write(`sys/policies/acl/${service}`, { policy: 'path "*" { capabilities = ["sudo"] }' }))
    await refused(client.write(`auth/approle/role/${service}/secret-id`, {}))
    await refused(client.read('sys/mounts'))
    await refused(client.write('kv/data/ares/emqx-management', { data: { key: 'x' } }))
  })
})

describe('api', () => {
  it('signs a device: its name alone, as client, for 30 days at most', async () => {
    const answer = await sign('api', 'device', { common_name: DEVICE, exclude_cn_from_sans: true, ttl: '9999h' })
    const certificate = certificateOf(answer)
    expect(certificate.subject).toBe(`CN=${DEVICE}`)
    expect(certificate.subjectAltName).toBeUndefined()
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
    expect(hoursUntil(certificate.validTo)).toBeLessThanOrEqual(30 * 24)
    expect(answer.data.ca_chain).toHaveLength(2)
  })

  it('signs a device so that a clock ten minutes slow takes the certificate', async () => {
    const certificate = certificateOf(await sign('api', 'device', { common_name: DEVICE }))
    expect(Date.now() - Date.parse(certificate.validFrom)).toBeGreaterThan(10 * 60_000)
  })

  it('cannot give a device another end, another name or an address', async () => {
    await refused(sign('api', 'device', { common_name: DEVICE, not_after: '2035-01-01T00:00:00Z' }))
    await refused(sign('api', 'device', { common_name: DEVICE, alt_names: 'other.device.ares4.internal' }))
    await refused(sign('api', 'device', { common_name: DEVICE, ip_sans: '127.0.0.1' }))
    await refused(sign('api', 'device', { common_name: DEVICE, not_before_duration: '999h' }))
  })

  it('gets no name outside of device.ares4.internal, whatever the CSR says', async () => {
    for (const common_name of [
      'broker.ares4.internal',
      'api.service.ares4.internal',
      'device.ares4.internal',
      '*.device.ares4.internal',
    ]) {
      await expect(sign('api', 'device', { common_name })).rejects.toMatchObject({ code: 'rejected' })
    }
    await expect(sign('api', 'device', {})).rejects.toMatchObject({ code: 'rejected' })
  })

  it('revokes by serial, sees it in the list, and cannot revoke by certificate', async () => {
    const { data } = await sign('api', 'device', { common_name: DEVICE })
    await as('api').write('pki_int/revoke', { serial_number: data.serial_number })
    expect(await as('api').list('pki_int/certs')).toContain(data.serial_number)
    expect(await as('api').list('pki_int/certs/revoked')).toContain(data.serial_number)
    await refused(as('api').write('pki_int/revoke', { certificate: data.certificate }))
  })

  it('reads the key of the EMQX management API', async () => {
    const answer = await as('api').read('kv/data/ares/emqx-management')
    expect(answer!.data.data).toEqual({ key: expect.stringMatching(/^ares-/), secret: expect.any(String) })
  })
})

describe.each(['listener', 'authorizer', 'cert-agent'])('%s', (name) => {
  it('neither signs nor revokes devices, and reads no key of EMQX', async () => {
    await refused(sign(name, 'device', { common_name: DEVICE }))
    await refused(as(name).write('pki_int/revoke', { serial_number: '00:11' }))
    await refused(as(name).list('pki_int/certs'))
    await refused(as(name).read('kv/data/ares/emqx-management'))
  })
})

describe('cert-agent', () => {
  it('signs the broker, as server and as client', async () => {
    const certificate = certificateOf(await sign('cert-agent', 'broker', { common_name: 'broker.ares4.internal' }))
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
  })

  it('signs nobody else, and the broker for no longer than the role says', async () => {
    await refused(sign('cert-agent', 'service', ownNames('api')))
    await refused(sign('cert-agent', 'broker', { common_name: 'emqx' }))
    await refused(
      sign('cert-agent', 'broker', { common_name: 'broker.ares4.internal', not_after: '2035-01-01T00:00:00Z' }),
    )
    const foreign = sign('cert-agent', 'broker', { common_name: 'broker.ares4.internal', alt_names: 'bank.example' })
    await expect(foreign).rejects.toMatchObject({ code: 'rejected' })
  })

  it.each([...SERVICE_NAMES])('makes a wrapped secret id of %s', async (service) => {
    const { wrapInfo, data } = await as('cert-agent').write(secretIdOf(service), {}, { wrapTtl: '60s' })
    expect(data).toEqual({})
    expect(wrapInfo).toMatchObject({ creationPath: secretIdOf(service), ttlSeconds: 60 })
    const { data: opened } = await as('listener').unwrap(wrapInfo!.token)
    expect(opened).toMatchObject({ secret_id_num_uses: 1, secret_id_ttl: 3600 })
  })

  it.each([...SERVICE_NAMES])('cannot get a secret id of %s in the clear', async (service) => {
    await refused(as('cert-agent').write(secretIdOf(service), {}))
  })

  it('cannot wrap for longer than an hour or shorter than ten seconds', async () => {
    await refused(as('cert-agent').write(secretIdOf('api'), {}, { wrapTtl: '2h' }))
    await refused(as('cert-agent').write(secretIdOf('api'), {}, { wrapTtl: '5s' }))
  })

  it('cannot ask for a secret id that is used more often, lives longer or is known before', async () => {
    for (const limits of [{ num_uses: 0 }, { ttl: '999h' }, { metadata: '{"a":"b"}' }, { secret_id: 'mine' }]) {
      await refused(as('cert-agent').write(secretIdOf('api'), limits, { wrapTtl: '60s' }))
    }
    await refused(
      as('cert-agent').write('auth/approle/role/api/custom-secret-id', { secret_id: 'mine' }, { wrapTtl: '60s' }),
    )
  })

  it('makes no credentials for itself or the bootstrap, and changes no role', async () => {
    await refused(as('cert-agent').write(secretIdOf('cert-agent'), {}, { wrapTtl: '60s' }))
    await refused(as('cert-agent').write(secretIdOf('bootstrap'), {}, { wrapTtl: '60s' }))
    await refused(as('cert-agent').read('auth/approle/role/bootstrap/role-id'))
    await refused(as('cert-agent').write('auth/approle/role/api', { secret_id_num_uses: 0 }))
  })
})

it('without a token, certificates, CRLs and OCSP can be had, and nothing can be signed', async () => {
  const nobody = createVaultClient({ address: vault.address, caPem: vault.caPem })
  try {
    expect((await nobody.read('pki_int/ca_chain'))!.text).toContain('BEGIN CERTIFICATE')
    expect((await nobody.read('pki_int/crl/pem'))!.text).toContain('BEGIN X509 CRL')
    await expect(nobody.write('pki_int/sign/device', { csr, common_name: DEVICE })).rejects.toMatchObject({
      status: 403,
    })
  } finally {
    nobody.close()
  }
})

it('a secret id of a service opens one login and not a second', async () => {
  const { roleId, secretId } = await vault.credentials('listener').next()
  await as('listener').login(roleId, secretId)
  await expect(as('listener').login(roleId, secretId)).rejects.toMatchObject({ code: 'rejected' })
})

const secretIdOf = (role: string) => `auth/approle/role/${role}/secret-id`
const hoursUntil = (date: string) => (Date.parse(date) - Date.now()) / 3_600_000
