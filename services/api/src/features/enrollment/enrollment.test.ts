import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { newKeyAndCsr, type VaultClient } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { addMember, furnish, startTestApi, type TestApi } from '../../testing/api'
import type { Pki } from '../certificates/pki'
import { VaultPki } from '../certificates/pki.vault'

/** On a real OpenBao and a real PostgreSQL. */
describe('enrollment', () => {
  let vault: TestVault
  let client: VaultClient
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  /** Runs between Vault's answer and the database, when it is set. */
  let afterSigning: (() => Promise<unknown>) | undefined
  const signed: string[] = []
  const withdrawn: string[] = []

  beforeAll(async () => {
    vault = await startTestVault()
    client = await vault.clientOf('api')
    const caPem = readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8')
    const real = new VaultPki(client, () => caPem)
    const pki: Pki = {
      async signDevice(csr, commonName) {
        const answer = await real.signDevice(csr, commonName)
        signed.push(answer.serial)
        await afterSigning?.()
        return answer
      },
      async revoke(serial) {
        await real.revoke(serial)
        withdrawn.push(serial)
      },
    }
    api = await startTestApi({ pki })
    home = await furnish(api)
  }, 60_000)
  afterAll(async () => {
    await api?.stop()
    client?.close()
    await vault?.stop()
  })
  beforeEach(() => {
    afterSigning = undefined
    signed.length = 0
    withdrawn.length = 0
  })

  const tokensPath = () => `/organizations/${home.organization.id}/enrollment-tokens`
  async function makeToken(more: object = {}) {
    const body = { name: 'Batch 7', blueprintId: home.blueprint.id, ...more }
    const answer = await api.call('post', tokensPath(), { token: home.owner.token, body })
    expect(answer.status).toBe(201)
    return answer.body as { id: string; token: string }
  }
  const csrFor = async (name: string) => (await newKeyAndCsr(name)).csrPem
  const enroll = async (token: string, serialNumber: string, csr?: string) =>
    api.call('post', '/enrollments', { body: { token, serialNumber, csr: csr ?? (await csrFor(serialNumber)) } })
  const prisma = () => api.context.database.prisma
  const countOf = async (serialNumber: string) => ({
    devices: await prisma().device.count({ where: { serialNumber } }),
    certificates: await prisma().certificate.count({ where: { device: { serialNumber } } }),
  })
  const lastAudit = () => prisma().audit.findFirstOrThrow({ orderBy: { id: 'desc' } })
  /** What the journal has written of a serial number. */
  const noted = async (serialNumber: string) =>
    until(() => prisma().audit.findFirst({ where: { detail: { path: ['serialNumber'], equals: serialNumber } } }))
  const refusal = ({ status, body }: { status: number; body: { code: string; requestId: string } }) => {
    const { requestId, ...problem } = body
    return { status, problem }
  }

  it('gives a device its identity, its components and a certificate in one go', async () => {
    const { token, id: tokenId } = await makeToken()
    const { status, body } = await enroll(token, 'SN-1')
    expect(status).toBe(201)
    expect(body).toMatchObject({ name: 'SN-1', blueprintId: home.blueprint.id, components: ['dht22'] })
    const leaf = new X509Certificate(body.certificate.certificate)
    expect(leaf.subject).toBe(`CN=${deviceCommonName(body.deviceId)}`)
    const device = await api.call('get', `/devices/${body.deviceId}`, { token: home.owner.token })
    expect(device.body).toMatchObject({ serialNumber: 'SN-1', state: 'active', organizationId: home.organization.id })
    const row = await prisma().certificate.findUniqueOrThrow({ where: { serial: body.certificate.serial } })
    expect(row).toMatchObject({ deviceId: body.deviceId, state: 'active', requestedBy: null })
    expect(await lastAudit()).toMatchObject({
      action: 'device.enrolled',
      actorKind: 'device',
      subjectId: body.deviceId,
      organizationId: home.organization.id,
      detail: { serialNumber: 'SN-1', enrollmentTokenId: tokenId },
    })
    const change = await prisma().directoryChange.findFirstOrThrow({ orderBy: { version: 'desc' } })
    expect(change).toMatchObject({ kind: 'device', id: body.deviceId })
  })

  it('keeps of a token nothing but its hash, and shows it once', async () => {
    const { token, id } = await makeToken({ maximumUses: 5, serialNumbers: ['A', 'B', 'A'] })
    const row = await prisma().enrollmentToken.findUniqueOrThrow({ where: { id } })
    expect(Buffer.from(row.tokenHash)).toEqual(createHash('sha256').update(token).digest())
    expect(row.serialNumbers).toEqual(['A', 'B'])
    const { body } = await api.call('get', tokensPath(), { token: home.owner.token })
    expect(body.items[0]).toMatchObject({ id, maximumUses: 5, uses: 0 })
    expect(JSON.stringify(body)).not.toContain(token)
    const audit = await prisma().audit.findMany()
    expect(JSON.stringify(audit, (_key, value) => (typeof value === 'bigint' ? '' : value))).not.toContain(token)
  })

  it('makes tokens for operators, not for viewers, and not for the blueprint of others', async () => {
    const body = { name: 'x', blueprintId: home.blueprint.id }
    for (const [role, status] of [
      ['operator', 201],
      ['viewer', 403],
    ] as const) {
      const { token } = await addMember(api, home.organization.id, role)
      expect((await api.call('post', tokensPath(), { token, body })).status).toBe(status)
    }
    const other = await furnish(api)
    const foreign = { name: 'x', blueprintId: other.blueprint.id }
    const answer = await api.call('post', tokensPath(), { token: home.owner.token, body: foreign })
    expect([answer.status, answer.body.code]).toEqual([400, 'blueprint_unknown'])
    const path = `/organizations/${other.organization.id}/enrollment-tokens/${(await makeToken()).id}`
    expect((await api.call('delete', path, { token: other.owner.token })).status).toBe(404)
  })

  it('gives one indistinct refusal, and the reason to the audit', async () => {
    const usedUp = await makeToken()
    expect((await enroll(usedUp.token, 'SN-2')).status).toBe(201)
    const expired = await makeToken()
    const past = new Date(Date.now() - 1_000)
    await prisma().enrollmentToken.update({ where: { id: expired.id }, data: { expiresAt: past } })
    const revoked = await makeToken()
    const revoke = await api.call('delete', `${tokensPath()}/${revoked.id}`, { token: home.owner.token })
    expect(revoke.status).toBe(204)
    const listed = await makeToken({ serialNumbers: ['SN-OTHER'] })
    const good = await makeToken()
    const cases = [
      ['token_used_up', usedUp.token, 'SN-3', usedUp.id],
      ['token_expired', expired.token, 'SN-3', expired.id],
      ['token_revoked', revoked.token, 'SN-3', revoked.id],
      ['serial_number_not_listed', listed.token, 'SN-3', listed.id],
      ['serial_number_taken', good.token, 'SN-2', good.id],
    ] as const
    const answers = []
    for (const [reason, token, serialNumber, tokenId] of cases) {
      answers.push(refusal(await enroll(token, serialNumber)))
      expect(await lastAudit()).toMatchObject({
        action: 'device.enrollment_refused',
        subjectId: tokenId,
        organizationId: home.organization.id,
        detail: { reason, serialNumber },
      })
    }
    answers.push(refusal(await enroll('ares_enroll_made-up', 'SN-UNKNOWN')))
    expect(await noted('SN-UNKNOWN')).toMatchObject({
      action: 'device.enrollment_refused',
      subjectId: 'unknown',
      organizationId: null,
      detail: { reason: 'token_unknown', count: 1 },
    })
    for (const answer of answers) expect(answer).toEqual(answers[0])
    expect(answers[0]).toMatchObject({ status: 403, problem: { code: 'enrollment_refused' } })
    expect(await countOf('SN-3')).toEqual({ devices: 0, certificates: 0 })
    expect(signed).toHaveLength(1) // SN-2, and nothing for those who were refused
  })

  it('says which rule a CSR breaks before it looks at the token', async () => {
    const { token } = await makeToken()
    for (const given of [token, 'ares_enroll_made-up']) {
      const answer = await enroll(given, 'SN-4', await csrFor('SN-5'))
      expect([answer.status, answer.body.code]).toEqual([400, 'csr_common_name_other'])
    }
    expect(await noted('SN-4')).toMatchObject({ organizationId: null, detail: { reason: 'csr_common_name_other' } })
    expect((await enroll(token, 'SN-4')).status).toBe(201)
  })

  it('gives the same answer to the same key, and refuses another key', async () => {
    const { token, id } = await makeToken()
    const csr = await csrFor('SN-6')
    const first = await enroll(token, 'SN-6', csr)
    const again = await enroll(token, 'SN-6', csr)
    expect(again.status).toBe(201)
    expect(again.body).toEqual(first.body)
    const repeated = { action: 'device.enrollment_repeated', subjectId: first.body.deviceId }
    expect(await until(() => prisma().audit.findFirst({ where: repeated }))).toMatchObject({
      organizationId: home.organization.id,
      detail: { reason: 'asked_again', serialNumber: 'SN-6' },
    })
    expect((await enroll(token, 'SN-6')).body.code).toBe('enrollment_refused')
    expect(signed).toHaveLength(1)
    expect(await prisma().enrollmentToken.findUnique({ where: { id } })).toMatchObject({ uses: 1 })
  })

  it('lets as many in as it may, also when all come at once; what was signed beside it is revoked', async () => {
    const { token, id } = await makeToken({ maximumUses: 3 })
    const names = Array.from({ length: 8 }, (_, n) => `SN-R${n}`)
    const answers = await Promise.all(names.map((name) => enroll(token, name)))
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 201, 201, 403, 403, 403, 403, 403])
    expect(await prisma().enrollmentToken.findUnique({ where: { id } })).toMatchObject({ uses: 3 })
    expect(await prisma().device.count({ where: { serialNumber: { startsWith: 'SN-R' } } })).toBe(3)
    expect(signed.length - withdrawn.length).toBe(3)
    for (const serial of withdrawn) {
      expect((await client.read(`pki_int/cert/${serial}`))?.data.revocation_time).toBeGreaterThan(0)
    }
  })

  it('lets one of two with the same serial number in', async () => {
    const { token } = await makeToken({ maximumUses: 10 })
    const answers = await Promise.all([enroll(token, 'SN-7'), enroll(token, 'SN-7')])
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 403])
    expect(await countOf('SN-7')).toEqual({ devices: 1, certificates: 1 })
  })

  it('leaves nothing behind when it fails after signing: token revoked meanwhile, or the database says no', async () => {
    const { token, id } = await makeToken()
    afterSigning = () => prisma().enrollmentToken.update({ where: { id }, data: { revokedAt: new Date() } })
    expect((await enroll(token, 'SN-8')).body.code).toBe('enrollment_refused')
    expect(withdrawn).toEqual(signed)
    expect(await countOf('SN-8')).toEqual({ devices: 0, certificates: 0 })

    afterSigning = undefined
    const second = await makeToken()
    const { pool } = api.context.database
    await pool.query(`ALTER TABLE audit ADD CONSTRAINT no_enrolled CHECK (action <> 'device.enrolled') NOT VALID`)
    const failed = await enroll(second.token, 'SN-8').finally(() =>
      pool.query('ALTER TABLE audit DROP CONSTRAINT no_enrolled'),
    )
    expect(failed.status).toBe(500)
    expect(await lastAudit()).toMatchObject({
      action: 'device.enrollment_refused',
      subjectId: second.id,
      organizationId: home.organization.id,
      detail: { reason: 'internal', serialNumber: 'SN-8' },
    })
    expect(withdrawn).toEqual(signed)
    expect(await countOf('SN-8')).toEqual({ devices: 0, certificates: 0 })
    expect((await enroll(second.token, 'SN-8')).status).toBe(201)
  })

  it('takes serial numbers that fit in a name only', async () => {
    const { token } = await makeToken()
    for (const serialNumber of ['', ' SN', 'a b', 'ä', 'x'.repeat(65), '../x\n']) {
      const answer = await api.call('post', '/enrollments', { body: { token, serialNumber, csr: 'x' } })
      expect([serialNumber, answer.status, answer.body.code]).toEqual([serialNumber, 400, 'invalid_request'])
    }
  })
})

it('slows down who guesses, and has every attempt in the audit, in few rows', async () => {
  const api = await startTestApi()
  try {
    const csr = (await newKeyAndCsr('SN')).csrPem
    const codes: string[] = []
    for (let n = 0; n < 65; n++) {
      const body = { token: `ares_enroll_${n}`, serialNumber: 'SN', csr }
      codes.push((await api.call('post', '/enrollments', { body })).body.code)
    }
    expect(codes.slice(0, 60)).toEqual(Array(60).fill('enrollment_refused'))
    expect(codes.slice(60)).toEqual(Array(5).fill('too_many_attempts'))
    const bodies = ['{"token":', '[]', {}, { token: 'x', serialNumber: ' ', csr }, { filler: 'x'.repeat(300_000) }]
    for (const body of bodies) await api.call('post', '/enrollments', { body })
    const counted = async () => {
      const rows = await api.context.database.prisma.audit.findMany({ where: { action: 'device.enrollment_refused' } })
      const counts = new Map<string, number>()
      for (const { detail } of rows) {
        const { reason, address, count } = detail as { reason: string; address: string; count: number }
        expect(address).toBe('127.0.0.1')
        counts.set(reason, (counts.get(reason) ?? 0) + count)
      }
      return Object.fromEntries(counts)
    }
    await until(async () => (await counted()).body_too_large)
    expect(await counted()).toEqual({
      token_unknown: 60,
      too_many_attempts: 5,
      invalid_json: 1,
      invalid_request: 3,
      body_too_large: 1,
    })
  } finally {
    await api.stop()
  }
})
