import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { Pool } from 'pg'
import { createTestDevice } from '../../testing/fleet'
import { deadLetterQuery } from './dead-letters.schema'
import { DeadLetterService } from './dead-letters.service'
import { DeadLetterStore } from './dead-letters.store'

let database: TestDatabase
let pool: Pool
let service: DeadLetterService
let deviceId: string

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url })
  service = new DeadLetterService(new DeadLetterStore(pool), {} as never)
  deviceId = (await createTestDevice(pool)).deviceId
})
afterAll(async () => {
  await pool?.end()
  await database?.drop()
})
beforeEach(() => pool.query('DELETE FROM dead_letters'))

it('are listed with their bytes, and as text when they are UTF-8', async () => {
  await write(Buffer.from('{"ü"'), 'malformed')
  await write(Buffer.from([0xff, 0xfe]), 'unsupported_format')
  const { items } = await service.list({ deviceId }, deadLetterQuery.parse({}))
  expect(items).toMatchObject([
    { reason: 'unsupported_format', payload: Buffer.from([0xff, 0xfe]).toString('base64'), text: null },
    { reason: 'malformed', payload: Buffer.from('{"ü"').toString('base64'), text: '{"ü"' },
  ])
  expect(await service.get(deviceId, items[0]!.id)).toEqual(items[0])
})

it('are paged and filtered by reason and time of receipt', async () => {
  for (let i = 0; i < 5; i += 1) await write(Buffer.from([i]), i % 2 ? 'malformed' : 'too_old', new Date(1_000 * i))
  const seen = []
  let cursor: string | undefined
  do {
    const page = await service.list({ deviceId }, deadLetterQuery.parse({ limit: 2, ...(cursor ? { cursor } : {}) }))
    seen.push(...page.items)
    cursor = page.nextCursor ?? undefined
  } while (cursor)
  expect(seen.map(({ receivedAt }) => receivedAt.getTime())).toEqual([4_000, 3_000, 2_000, 1_000, 0])
  const some = await service.list(
    { deviceId },
    deadLetterQuery.parse({ reason: 'too_old', from: '1970-01-01T00:00:01Z', to: '1970-01-01T00:00:04Z' }),
  )
  expect(some.items.map(({ receivedAt }) => receivedAt.getTime())).toEqual([2_000])
})

it('of another device are not found', async () => {
  await write(Buffer.from('x'), 'malformed')
  const { items } = await service.list({ deviceId }, deadLetterQuery.parse({}))
  const other = await createTestDevice(pool)
  await expect(service.get(other.deviceId, items[0]!.id)).rejects.toMatchObject({ code: 'dead_letter_not_found' })
  expect((await service.list({ deviceId: other.deviceId }, deadLetterQuery.parse({}))).items).toEqual([])
})

const write = (payload: Buffer, reason: string, receivedAt = new Date()) =>
  pool.query('INSERT INTO dead_letters (device_id, topic, payload, reason, received_at) VALUES ($1, $2, $3, $4, $5)', [
    deviceId,
    `ares4/${deviceId}/telemetry`,
    payload,
    reason,
    receivedAt,
  ])
