import { randomUUID } from 'node:crypto'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { Pool } from 'pg'
import { createTestDevice } from '../../testing/fleet'
import { StatusService } from './status.service'
import { StatusStore } from './status.store'

let database: TestDatabase
let pool: Pool
let service: StatusService
let deviceId: string

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url })
  service = new StatusService(new StatusStore(pool))
})
afterAll(async () => {
  await pool?.end()
  await database?.drop()
})
beforeEach(async () => {
  deviceId = (await createTestDevice(pool)).deviceId
})

const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds))
const stored = async () =>
  (await pool.query('SELECT online, status_at, last_seen_at FROM devices WHERE id = $1', [deviceId])).rows[0]

it('a status is stored, and online is a sign of life', async () => {
  expect(await service.record([{ deviceId, online: true, receivedAt: at(1) }])).toBe(1)
  expect(await stored()).toEqual({ online: true, status_at: at(1), last_seen_at: at(1) })
  expect(await service.record([{ deviceId, online: false, receivedAt: at(2) }])).toBe(1)
  expect(await stored()).toEqual({ online: false, status_at: at(2), last_seen_at: at(1) })
})

it('an older one never overwrites a newer one', async () => {
  await service.record([{ deviceId, online: true, receivedAt: at(5) }])
  expect(await service.record([{ deviceId, online: false, receivedAt: at(4) }])).toBe(0)
  expect(await stored()).toMatchObject({ online: true, status_at: at(5) })
})

it('of several in one call the newest stands, wherever it is', async () => {
  const statuses = [
    { deviceId, online: false, receivedAt: at(3) },
    { deviceId, online: true, receivedAt: at(2) },
  ]
  expect(await service.record(statuses)).toBe(1)
  expect(await stored()).toMatchObject({ online: false, status_at: at(3) })
})

it('an unknown device is left out', async () => {
  const statuses = [randomUUID(), 'not-a-uuid', deviceId].map((id) => ({
    deviceId: id,
    online: true,
    receivedAt: at(1),
  }))
  expect(await service.record(statuses)).toBe(1)
})

it('nothing at all, and a status without a time, are refused', async () => {
  await expect(service.record([])).rejects.toMatchObject({ kind: 'invalid' })
  await expect(service.record([{ deviceId, online: true }])).rejects.toMatchObject({ kind: 'invalid' })
})
