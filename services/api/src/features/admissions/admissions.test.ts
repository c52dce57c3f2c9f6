import { randomUUID } from 'node:crypto'
import { createLogger } from '@ares/chassis'
import { type Admission, AdmissionAction, AdmissionResult } from '@ares/proto/directory/v1/admission'
import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { AdmissionService } from './admissions.service'
import { AdmissionStore, type FirstConnection } from './admissions.store'

let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let service: AdmissionService
let told: FirstConnection[]

const connected = (given: Partial<Admission> = {}): Admission => ({
  at: new Date(),
  count: 1,
  action: AdmissionAction.ADMISSION_ACTION_CONNECT,
  result: AdmissionResult.ADMISSION_RESULT_ALLOW,
  reason: 'allowed',
  rule: '',
  className: 'device',
  subjectId: home?.device.id ?? '',
  clientId: home?.device.id ?? '',
  certificateSerial: Buffer.alloc(0),
  peerAddress: '10.1.2.3',
  zone: 'devices',
  topic: '',
  ...given,
})

const refused = (given: Partial<Admission> = {}): Admission =>
  connected({
    action: AdmissionAction.ADMISSION_ACTION_PUBLISH,
    result: AdmissionResult.ADMISSION_RESULT_DENY,
    reason: 'no_rule',
    topic: 'somewhere',
    zone: '',
    ...given,
  })

beforeAll(async () => {
  api = await startTestApi()
  home = await furnish(api)
})
afterAll(() => api?.stop())
beforeEach(async () => {
  told = []
  service = new AdmissionService(new AdmissionStore(api.context.database.pool), {
    logger: createLogger({ service: 'test', level: 'error' }),
    onFirstConnections: (first) => void told.push(...first),
  })
  await api.context.database.pool.query('DELETE FROM admissions')
  await api.context.database.pool.query('DELETE FROM certificates')
})

it('are stored once, however often the batch comes', async () => {
  const batch = { batchId: randomUUID(), admissions: [connected(), refused({ topic: `ares4/${home.device.id}/x` })] }
  expect(await service.record(batch)).toBe(2)
  expect(await service.record(batch)).toBe(0)
  const { items } = await service.list({ deviceId: home.device.id }, { limit: 10 })
  expect(items).toHaveLength(2)
})

it('are shown to the members, and all of an organization to its owner', async () => {
  const serial = Buffer.from('009f3a', 'hex')
  await service.record({ batchId: randomUUID(), admissions: [connected({ certificateSerial: serial.subarray(1) })] })
  await service.record({ batchId: randomUUID(), admissions: [refused({ count: 40, clientId: '' })] })
  const { token } = home.owner
  const { body } = await api.call('get', `/devices/${home.device.id}/admissions?result=deny`, { token })
  expect(body.items).toMatchObject([
    { action: 'publish', allowed: false, reason: 'no_rule', count: 40, clientId: null },
  ])
  const all = await api.call('get', `/organizations/${home.organization.id}/admissions?limit=1`, { token })
  expect(all.body.items).toMatchObject([{ reason: 'no_rule' }])
  const path = `/organizations/${home.organization.id}/admissions?cursor=${all.body.nextCursor}`
  expect((await api.call('get', path, { token })).body.items).toMatchObject([
    { action: 'connect', allowed: true, className: 'device', certificateSerial: '9f:3a', deviceId: home.device.id },
  ])
})

it("are the organization's whose device a person was refused", async () => {
  const topic = `ares4/${home.device.id}/commands/1`
  await service.record({
    batchId: randomUUID(),
    admissions: [refused({ className: 'user', subjectId: randomUUID(), topic })],
  })
  const { items } = await service.list({ organizationId: home.organization.id }, { limit: 10 })
  expect(items).toMatchObject([{ topic, deviceId: home.device.id }])
})

it('note the first and the last connection with a certificate, and tell of the first once', async () => {
  await certificate('0a:01')
  const first = new Date('2026-01-01T00:00:00Z')
  const last = new Date('2026-01-01T00:05:00Z')
  const row = (at: Date) => connected({ at, certificateSerial: Buffer.from('0a01', 'hex') })
  await service.record({ batchId: randomUUID(), admissions: [row(first)] })
  await service.record({ batchId: randomUUID(), admissions: [row(last), refused()] })
  expect(told).toEqual([{ serial: '0a:01', deviceId: home.device.id }])
  const { rows } = await api.context.database.pool.query('SELECT first_seen_at, last_seen_at FROM certificates')
  expect(rows).toEqual([{ first_seen_at: first, last_seen_at: last }])
})

it('do not take a refused connection for one', async () => {
  await certificate('0a:02')
  const certificateSerial = Buffer.from('0a02', 'hex')
  const admission = refused({ action: AdmissionAction.ADMISSION_ACTION_CONNECT, certificateSerial })
  await service.record({ batchId: randomUUID(), admissions: [admission] })
  expect(told).toEqual([])
})

it('survive whatever a client called itself', async () => {
  const clientId = '\0\ud800"\\\u202e%s'
  await service.record({ batchId: randomUUID(), admissions: [connected({ clientId, topic: 'a/'.repeat(500) })] })
  const { items } = await service.list({ deviceId: home.device.id }, { limit: 10 })
  expect(items).toHaveLength(1)
})

it('are forgotten past their time', async () => {
  const old = new Date(Date.now() - 31 * 86_400_000)
  await service.record({ batchId: randomUUID(), admissions: [connected({ at: old }), connected()] })
  service.start()
  await service.stop()
  expect((await service.list({ deviceId: home.device.id }, { limit: 10 })).items).toHaveLength(1)
})

it.each([
  ['an empty batch', []],
  ['more than 1,000', Array.from({ length: 1_001 }, () => connected())],
  ['one without a time', [{ ...connected(), at: undefined }]],
  ['one that happened never', [connected({ count: 0 })]],
  ['one without an action', [connected({ action: AdmissionAction.ADMISSION_ACTION_UNSPECIFIED })]],
  ['one without a result', [connected({ result: AdmissionResult.ADMISSION_RESULT_UNSPECIFIED })]],
])('refuse %s', async (_what, admissions) => {
  await expect(service.record({ batchId: randomUUID(), admissions })).rejects.toMatchObject({
    code: 'invalid_admissions',
  })
})

const certificate = (serial: string) =>
  api.context.database.pool.query(
    "INSERT INTO certificates (serial, device_id, fingerprint, not_before, not_after) VALUES ($1, $2, repeat('ab', 32), now(), now() + '1 day')",
    [serial, home.device.id],
  )
