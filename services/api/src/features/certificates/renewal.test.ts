import { createSign, KeyObject, sign as signWith, webcrypto, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createLogger, newKeyAndCsr, type VaultClient, x509 } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import type { RenewCertificateRequest, RenewCertificateResponse } from '@ares/proto/devices/v1/devices'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { AuditService } from '../audit/audit.service'
import { AuditStore } from '../audit/audit.store'
import { CertificateStore } from './certificates.store'
import type { Pki } from './pki'
import { VaultPki } from './pki.vault'
import { renewalRpc } from './renewal.rpc'
import { RenewalService } from './renewal.service'
import { RenewalStore } from './renewal.store'
import { Retirement } from './retirement'
import { CertificateSigning } from './signing'

/** On a real OpenBao and a real PostgreSQL. */
describe('renewal', () => {
  let vault: TestVault
  let client: VaultClient
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  let renewals: RenewalService
  let retirement: Retirement
  const withdrawn: string[] = []

  beforeAll(async () => {
    vault = await startTestVault()
    client = await vault.clientOf('api')
    const caPem = readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8')
    const real = new VaultPki(client, () => caPem)
    const pki: Pki = {
      signDevice: (csr, commonName) => real.signDevice(csr, commonName),
      async revoke(serial) {
        await real.revoke(serial)
        withdrawn.push(serial)
      },
    }
    api = await startTestApi({ pki })
    home = await furnish(api)
    const { prisma } = api.context.database
    const logger = createLogger({ service: 'api', level: 'error' })
    const certificates = new CertificateStore(prisma)
    const store = new RenewalStore(prisma)
    const audit = new AuditService(new AuditStore(prisma))
    renewals = new RenewalService(certificates, store, new CertificateSigning(certificates, pki, logger), audit, logger)
    retirement = new Retirement(certificates, store, audit, logger)
  }, 60_000)
  afterAll(async () => {
    await api?.stop()
    client?.close()
    await vault?.stop()
  })
  beforeEach(() => {
    withdrawn.length = 0
  })

  /** A device with a certificate that has had more than half of its life. */
  async function agedDevice(name: string) {
    const { token } = home.owner
    const body = { name, blueprintId: home.blueprint.id }
    const { id } = (await api.call('post', `/organizations/${home.organization.id}/devices`, { token, body })).body
    const { keyPem, csrPem } = await newKeyAndCsr(deviceCommonName(id))
    const issued = await api.call('post', `/devices/${id}/certificates`, { token, body: { csr: csrPem } })
    await age(issued.body.serial)
    return { id: id as string, serial: issued.body.serial as string, keyPem }
  }
  const age = (serial: string) =>
    api.context.database.pool.query(
      `UPDATE certificates SET created_at = now() - interval '20 days', not_after = now() + interval '10 days' WHERE serial = $1`,
      [serial],
    )
  const connectedWith = (serial: string) =>
    api.context.database.pool.query(
      'UPDATE certificates SET first_seen_at = coalesce(first_seen_at, now()), last_seen_at = now() WHERE serial = $1',
      [serial],
    )
  const csrOf = async (id: string) => (await newKeyAndCsr(deviceCommonName(id))).csrPem
  const rows = (deviceId: string) =>
    api.context.database.prisma.certificate.findMany({ where: { deviceId }, orderBy: { createdAt: 'asc' } })
  const states = async (deviceId: string) => (await rows(deviceId)).map((row) => row.state)
  const renew = (id: string, csr: string) => renewals.renew({ kind: 'device', id }, id, csr)
  const codeOf = (work: Promise<unknown>) =>
    work.then(
      () => 'none',
      (error) => error.code,
    )

  it('leaves old and new both good until the first connection with the new one, which retires the old', async () => {
    const device = await agedDevice('Both')
    const signed = await renew(device.id, await csrOf(device.id))
    expect(await states(device.id)).toEqual(['active', 'active'])
    expect((await rows(device.id))[1]).toMatchObject({ serial: signed.serial, supersedes: device.serial })
    await retirement.sweep()
    expect(await states(device.id)).toEqual(['active', 'active'])

    const before = await api.context.database.prisma.directoryHead.findFirstOrThrow()
    await connectedWith(signed.serial)
    await retirement.sweep()
    expect(await states(device.id)).toEqual(['retired', 'active'])
    const change = await api.context.database.prisma.directoryChange.findFirstOrThrow({ orderBy: { version: 'desc' } })
    expect(change).toMatchObject({ kind: 'device', id: device.id, version: before.version + 1n })
    await retirement.sweep()
    expect(await states(device.id)).toEqual(['retired', 'active'])
    const { items } = (
      await api.call('get', `/organizations/${home.organization.id}/audit`, { token: home.owner.token })
    ).body
    expect(items.slice(0, 2).map((item: { action: string }) => item.action)).toEqual([
      'certificate.retired',
      'certificate.renewed',
    ])
  })

  it('is refused before half of the life is over', async () => {
    const device = await agedDevice('Early')
    const { serial } = await renew(device.id, await csrOf(device.id))
    await connectedWith(serial)
    expect(await codeOf(renew(device.id, await csrOf(device.id)))).toBe('renewal_too_early')
    expect(await rows(device.id)).toHaveLength(2)
  })

  it('gives the same CSR the same answer', async () => {
    const device = await agedDevice('Again')
    const csr = await csrOf(device.id)
    const first = await renew(device.id, csr)
    const second = await renew(device.id, csr)
    expect(second.certificatePem).toBe(first.certificatePem)
    expect(second.chainPem).toEqual(first.chainPem)
    expect(await rows(device.id)).toHaveLength(2)
  })

  it('gives two of the same CSR at once one certificate, and revokes what was signed beside it', async () => {
    const device = await agedDevice('Twins')
    const csr = await csrOf(device.id)
    const answers = await Promise.all([renew(device.id, csr), renew(device.id, csr), renew(device.id, csr)])
    expect(new Set(answers.map((answer) => answer.serial)).size).toBe(1)
    expect(await states(device.id)).toEqual(['active', 'active'])
    expect(withdrawn).not.toContain(answers[0]!.serial)
  })

  it('grants one of two different CSRs at once; the other is told so, and nothing is left over', async () => {
    const device = await agedDevice('Rivals')
    const csrs = await Promise.all([csrOf(device.id), csrOf(device.id)])
    const answers = await Promise.allSettled(csrs.map((csr) => renew(device.id, csr)))
    expect(answers.map((answer) => answer.status).sort()).toEqual(['fulfilled', 'rejected'])
    const refused = answers.find((answer) => answer.status === 'rejected')
    expect(refused).toMatchObject({ reason: { code: 'renewal_in_progress' } })
    const granted = answers.find((answer) => answer.status === 'fulfilled')
    expect((await rows(device.id)).map((row) => row.serial)).toEqual([device.serial, granted?.value.serial])
    for (const serial of withdrawn) {
      expect((await client.read(`pki_int/cert/${serial}`))?.data.revocation_time).toBeGreaterThan(0)
    }
  })

  it('replaces a new certificate whose key was lost before it was used', async () => {
    const device = await agedDevice('Lost key')
    await connectedWith(device.serial)
    const lost = await renew(device.id, await csrOf(device.id))
    await api.context.database.pool.query(
      `UPDATE certificates SET created_at = now() - interval '2 minutes' WHERE serial = $1`,
      [lost.serial],
    )
    const found = await renew(device.id, await csrOf(device.id))
    const now = await rows(device.id)
    expect(Object.fromEntries(now.map((row) => [row.serial, row.state]))).toEqual({
      [device.serial]: 'active',
      [lost.serial]: 'retired',
      [found.serial]: 'active',
    })
  })

  it('is not for a disabled device, an unknown one, or another name', async () => {
    const device = await agedDevice('Disabled')
    expect(await codeOf(renew(device.id, await csrOf(home.device.id)))).toBe('csr_common_name_other')
    await api.context.database.prisma.device.update({ where: { id: device.id }, data: { state: 'disabled' } })
    expect(await codeOf(renew(device.id, await csrOf(device.id)))).toBe('device_disabled')
    const nobody = '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11'
    expect(await codeOf(renew(nobody, await csrOf(nobody)))).toBe('device_not_found')
  })

  it('retires what has ended', async () => {
    const device = await agedDevice('Ended')
    const yesterday = `UPDATE certificates SET not_before = now() - interval '9 days', not_after = now() - interval '1 day'
       WHERE serial = $1`
    await api.context.database.pool.query(yesterday, [device.serial])
    await retirement.sweep()
    expect(await states(device.id)).toEqual(['retired'])
  })

  it('over gRPC says to the device what is wrong, as an answer', async () => {
    const call = (request: RenewCertificateRequest) =>
      new Promise<RenewCertificateResponse>((resolve, reject) => {
        const { renewCertificate } = renewalRpc(renewals) as unknown as Record<
          string,
          (call: object, done: (error: Error | null, response: RenewCertificateResponse) => void) => void
        >
        renewCertificate!({ request }, (error, response) => (error ? reject(error) : resolve(response)))
      })
    const device = await agedDevice('Over gRPC')
    const good = await call({ deviceId: device.id, csr: await csrOf(device.id) })
    expect(good.result).toMatchObject({
      $case: 'certificate',
      value: { chain: [expect.any(String), expect.any(String)] },
    })
    const bad = await call({ deviceId: device.id, csr: 'no CSR' })
    expect(bad.result).toMatchObject({ $case: 'refused', value: { code: 'csr_malformed', retryAfterSeconds: 0 } })
    const late = await call({ deviceId: device.id, csr: await csrOf(device.id) })
    expect(late.result).toMatchObject({ $case: 'refused', value: { code: 'renewal_in_progress' } })
  })

  describe('over REST, with the key of the certificate', () => {
    const post = (deviceId: string, body: object) =>
      api.call('post', `/devices/${deviceId}/certificates/renewals`, { body })
    const signature = (text: string, keyPem: string) => createSign('sha256').update(text).sign(keyPem, 'base64')

    it('gives the new certificate without a login', async () => {
      const device = await agedDevice('Proof')
      const csr = await csrOf(device.id)
      const { serial, keyPem } = device
      const { status, body } = await post(device.id, { csr, serial, signature: signature(csr, keyPem) })
      expect(status).toBe(201)
      expect(new X509Certificate(body.certificate).subject).toBe(`CN=${deviceCommonName(device.id)}`)
      expect((await rows(device.id))[1]).toMatchObject({ serial: body.serial, supersedes: serial })
    })

    it.each(['rsa', 'ed25519'] as const)('takes the signature of a key of the kind %s', async (kind) => {
      const device = await agedDevice(`Proof ${kind}`)
      const csr = await csrOf(device.id)
      const current = await certificateWith(kind, device.id)
      const sign = (text: string) =>
        signWith(kind === 'ed25519' ? null : 'sha256', Buffer.from(text), current.key).toString('base64')
      const { serial } = current
      expect((await post(device.id, { csr, serial, signature: sign(`${csr}x`) })).status).toBe(403)
      expect((await post(device.id, { csr, serial, signature: sign(csr) })).status).toBe(201)
    })

    /** Gives the device a certificate for a key of this kind. */
    async function certificateWith(kind: 'rsa' | 'ed25519', id: string) {
      const algorithm =
        kind === 'rsa'
          ? {
              name: 'RSASSA-PKCS1-v1_5',
              hash: 'SHA-256',
              modulusLength: 2048,
              publicExponent: new Uint8Array([1, 0, 1]),
            }
          : { name: 'Ed25519' }
      const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
      const request = await x509.Pkcs10CertificateRequestGenerator.create({
        name: [{ CN: [deviceCommonName(id)] }],
        keys,
        signingAlgorithm: algorithm,
      })
      const body = { csr: request.toString('pem') }
      const issued = await api.call('post', `/devices/${id}/certificates`, { token: home.owner.token, body })
      expect(issued.status).toBe(201)
      await age(issued.body.serial)
      return { serial: issued.body.serial as string, key: KeyObject.from(keys.privateKey) }
    }

    it('tells nothing apart: unknown device, unknown serial, wrong key, revoked', async () => {
      const device = await agedDevice('No proof')
      const other = await agedDevice('Other')
      const csr = await csrOf(device.id)
      const good = signature(csr, device.keyPem)
      const { prisma } = api.context.database
      const answers = [
        await post('01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11', { csr, serial: device.serial, signature: good }),
        await post(device.id, { csr, serial: 'aa:bb', signature: good }),
        await post(device.id, { csr, serial: other.serial, signature: signature(csr, other.keyPem) }),
        await post(device.id, { csr, serial: device.serial, signature: signature(csr, other.keyPem) }),
        await post(device.id, { csr: `${csr} `, serial: device.serial, signature: good }),
        await post(device.id, { csr, serial: device.serial, signature: 'x' }),
      ]
      await prisma.certificate.update({
        where: { serial: device.serial },
        data: { state: 'revoked', revokedAt: new Date() },
      })
      answers.push(await post(device.id, { csr, serial: device.serial, signature: good }))
      const plain = answers.map(({ status, body: { requestId, ...problem } }) => ({ status, problem }))
      for (const answer of plain) expect(answer).toEqual(plain[0])
      expect(plain[0]).toMatchObject({ status: 403, problem: { code: 'renewal_refused' } })
      expect(await rows(device.id)).toHaveLength(1)
    })
  })
})
