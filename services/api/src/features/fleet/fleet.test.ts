import { TestAuthority } from '@ares/chassis/testing'
import { newId } from '../../ids'
import { addMember, furnish, startTestApi, type TestApi } from '../../testing/api'
import { COLUMN, STEPS } from '../revocations/revocations'
import { CaFindings } from './ca-findings'

const DAY_MS = 24 * 3_600_000

describe('the fleet doctor', () => {
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  /** What the broker says of a client. */
  const connected = new Map<string, Date>()
  let brokerIsAway = false
  /** The CAs of the house. */
  let caPem = ''

  beforeAll(async () => {
    api = await startTestApi({
      caPem: () => caPem,
      clients: {
        async call(_method, path) {
          if (brokerIsAway) throw new Error('The broker cannot be managed now.')
          const since = connected.get(path.split('/').at(-1) ?? '')
          return since
            ? { status: 200, body: { connected: true, connected_at: since.toISOString() } }
            : { status: 404, body: {} }
        },
      },
    })
    home = await furnish(api)
  })
  afterAll(() => api?.stop())
  afterEach(async () => {
    brokerIsAway = false
    caPem = ''
    connected.clear()
    const { pool } = api.context.database
    await pool.query('DELETE FROM certificates')
    await pool.query('DELETE FROM admissions')
    await pool.query('DELETE FROM revocations')
    await pool.query(`UPDATE devices SET state = 'active', last_seen_at = NULL`)
  })

  let made = 0
  /** A certificate of the device of `home`, with times in days from now. */
  async function certificate(begin: number, end: number, more: Record<string, unknown> = {}): Promise<string> {
    made += 1
    const serial = `aa:${made.toString(16).padStart(2, '0')}`
    await api.context.database.prisma.certificate.create({
      data: {
        serial,
        deviceId: home.device.id,
        fingerprint: made.toString(16).padStart(64, '0'),
        notBefore: inDays(begin),
        createdAt: inDays(begin),
        notAfter: inDays(end),
        ...more,
      },
    })
    return serial
  }
  const inDays = (days: number) => new Date(Date.now() + days * DAY_MS)
  async function diagnose(token = home.owner.token) {
    const { body } = await api.call('get', '/fleet/findings', { token })
    for (const { cause, remedy } of body.items)
      expect([cause, remedy]).toEqual([expect.stringMatching(/^.{20,}\.$/), expect.stringMatching(/^.{20,}\.$/)])
    return body
  }
  const codes = async () => (await diagnose()).items.map((item: { code: string }) => item.code)
  const seen = () => api.context.database.pool.query('UPDATE devices SET last_seen_at = now()')

  let admissions = 0
  async function admission(serial: string, minute: number, more: object) {
    admissions += 1
    await api.context.database.prisma.admission.create({
      data: {
        at: new Date(Date.now() - 3_600_000 + minute * 60_000),
        action: 'connect',
        allowed: true,
        reason: 'allowed',
        certificateSerial: serial,
        deviceId: home.device.id,
        organizationId: home.organization.id,
        clientId: home.device.id,
        batchId: '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11',
        batchIndex: admissions,
        ...more,
      },
    })
  }

  it('finds nothing where nothing is wrong', async () => {
    await certificate(-10, 20, { firstSeenAt: inDays(-9) })
    await seen()
    expect(await diagnose()).toMatchObject({ items: [], skipped: [] })
  })

  it('finds a certificate that ends soon, and says whether the device asked for the next one', async () => {
    await seen()
    await certificate(-26, 4, { firstSeenAt: inDays(-26) })
    const { items } = await diagnose()
    expect(items).toEqual([
      {
        code: 'certificate_ends_soon',
        severity: 'warning',
        organizationId: home.organization.id,
        subject: { kind: 'device', id: home.device.id, name: 'Roof' },
        cause: expect.stringContaining('It has not asked for a new one.'),
        remedy: expect.stringContaining('certificate/request'),
      },
    ])
    await certificate(-1, 29, { supersedes: 'aa' })
    expect((await diagnose()).items[0].cause).toContain('has not connected with it')
    await certificate(0, 30, { firstSeenAt: inDays(0), supersedes: 'aa' })
    expect(await codes()).toEqual([])
  })

  it('is urgent on the last day, and after the end', async () => {
    await seen()
    const serial = await certificate(-29.5, 0.5, { firstSeenAt: inDays(-29) })
    expect((await diagnose()).items[0]).toMatchObject({ code: 'certificate_ends_soon', severity: 'critical' })
    const data = { notAfter: inDays(-1), state: 'retired', retiredAt: new Date() } as const
    await api.context.database.prisma.certificate.update({ where: { serial }, data })
    expect((await diagnose()).items[0]).toMatchObject({ code: 'certificate_ended', severity: 'critical' })
  })

  it('finds a device that has a certificate and was never seen', async () => {
    await certificate(-1, 29)
    expect(await codes()).toEqual(['device_never_seen'])
    await seen()
    expect(await codes()).toEqual([])
  })

  it('finds a certificate under the name of another device', async () => {
    await seen()
    const serial = await certificate(-1, 29, { firstSeenAt: inDays(-1) })
    await admission(serial, 0, { allowed: false, reason: 'wrong_client_id', clientId: 'another', deviceId: null })
    expect((await diagnose()).items).toEqual([
      expect.objectContaining({
        code: 'certificate_under_two_names',
        subject: { kind: 'certificate', id: serial, name: `Roof (${home.device.id})` },
        cause: expect.stringContaining('another'),
      }),
    ])
  })

  it('finds a certificate at two addresses at once, not one that moved', async () => {
    await seen()
    const serial = await certificate(-1, 29, { firstSeenAt: inDays(-1) })
    await admission(serial, 0, { peerAddress: '10.0.0.1' })
    await admission(serial, 1, { peerAddress: '10.0.0.2' })
    expect(await codes()).toEqual([])
    await admission(serial, 2, { peerAddress: '10.0.0.1' })
    const { items } = await diagnose()
    expect(items).toMatchObject([{ code: 'certificate_at_two_addresses', severity: 'critical' }])
    expect(items[0].cause).toContain('10.0.0.1 and 10.0.0.2')
  })

  it('finds a device that is disabled, or had its certificate revoked, and is connected all the same', async () => {
    await seen()
    const { pool } = api.context.database
    connected.set(home.device.id, inDays(-2))
    await certificate(-3, 27, { state: 'revoked', revokedAt: inDays(-1) })
    await certificate(-1, 29, { firstSeenAt: inDays(-1) })
    expect(await codes()).toEqual(['revoked_but_connected'])
    // It came back with the other certificate.
    connected.set(home.device.id, new Date())
    expect(await codes()).toEqual([])
    await pool.query(`UPDATE devices SET state = 'disabled', updated_at = now() - interval '1 minute'`)
    expect(await codes()).toEqual(['revoked_but_connected'])
  })

  it('finds a revocation that is not through after half a minute, and the step that fails', async () => {
    await seen()
    const { prisma } = api.context.database
    const plan = (id: string, ageMs: number, more: object = {}) =>
      prisma.revocation.create({
        data: {
          id,
          organizationId: home.organization.id,
          deviceId: home.device.id,
          kind: 'certificate',
          serials: ['aa:99'],
          requestedBy: { kind: 'system' },
          createdAt: new Date(Date.now() - ageMs),
          nextTryAt: inDays(1),
          ...more,
        },
      })
    const [stuck, young, done] = [newId(), newId(), newId()]
    await plan(stuck, 60_000, { failedStep: 'kick' })
    await plan(young, 1_000)
    const times = STEPS.map((step) => [COLUMN[step], new Date()])
    await plan(done, 60_000, { ...Object.fromEntries(times), directoryVersion: 1n, finishedAt: new Date() })
    const { items } = await diagnose()
    expect(items).toEqual([
      expect.objectContaining({
        code: 'revocation_unfinished',
        severity: 'critical',
        subject: { kind: 'revocation', id: stuck, name: null },
        cause: expect.stringMatching(/is not through: kick fails\.$/),
      }),
    ])
  })

  it('says what it could not look at', async () => {
    await seen()
    await certificate(-3, 27, { state: 'revoked', revokedAt: inDays(-1) })
    brokerIsAway = true
    expect((await diagnose()).skipped).toEqual([{ check: 'broker', why: 'The broker cannot be managed now.' }])
  })

  it('shows what is wrong with the house to owners alone', async () => {
    await seen()
    caPem = (await TestAuthority.create()).caPem // it ends tomorrow
    expect(new Set(await codes())).toEqual(new Set(['ca_ends_soon']))
    const viewer = await addMember(api, home.organization.id, 'viewer')
    expect((await diagnose(viewer.token)).items).toEqual([])
  })

  it('shows a stranger nothing, also when he names the organization', async () => {
    await certificate(-1, 29)
    const stranger = await api.person()
    expect((await diagnose(stranger.token)).items).toEqual([])
    const path = `/fleet/findings?organizationId=${home.organization.id}`
    expect((await api.call('get', path, { token: stranger.token })).body.items).toEqual([])
    expect((await api.call('get', path, { token: home.owner.token })).body.items).toHaveLength(1)
  })
})

it('finds a CA that ends soon', async () => {
  const { caPem } = await TestAuthority.create()
  const [ca] = await new CaFindings(
    () => caPem,
    () => Date.now() + 100 * 365 * DAY_MS,
  ).find()
  expect(ca).toMatchObject({ code: 'ca_ended', severity: 'critical', organizationId: null, subject: { kind: 'ca' } })
  const cas = await new CaFindings(
    () => caPem,
    () => Date.now() - 200 * DAY_MS,
  ).find()
  for (const finding of cas) expect(finding.severity).toBe('warning')
})
