import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { Pool } from 'pg'
import { attachComponent, createTestDevice, type TestDevice } from '../../testing/fleet'
import { Partitions } from './partitions'
import { QueryStore } from './query.store'
import { TelemetryQueryService } from './telemetry.query'
import { telemetryQuery } from './telemetry.schema'
import { TelemetryUpkeep } from './telemetry.upkeep'

const DAY_MS = 86_400_000
const silent = { info() {}, warn() {} } as never

let database: TestDatabase
let pool: Pool
let partitions: Partitions
let service: TelemetryQueryService
let device: TestDevice
let second: number
const now = Date.now()

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url })
  partitions = new Partitions(pool)
  service = new TelemetryQueryService(new QueryStore(pool), () => now)
})
afterAll(async () => {
  await pool?.end()
  await database?.drop()
})
beforeEach(async () => {
  device = await createTestDevice(pool)
  second = await attachComponent(pool, device.deviceId, device.supportedComponentId, 'second')
})

it('pages go through everything once, in either order, also where instants are equal', async () => {
  for (let i = 0; i < 7; i += 1) {
    await write(device.componentId, now - i * 1_000, { temperature: i })
    await write(second, now - i * 1_000, { temperature: 100 + i })
  }
  for (const order of ['asc', 'desc'] as const) {
    const items = []
    let cursor: string | undefined
    do {
      const page = await read({ order, limit: 3, ...(cursor ? { cursor } : {}) })
      expect(page.items.length).toBeLessThanOrEqual(3)
      items.push(...page.items)
      cursor = page.nextCursor ?? undefined
    } while (cursor)
    expect(items).toHaveLength(14)
    const keys = items.map(({ capturedAt, component }) => `${capturedAt.toISOString()} ${component}`)
    expect(new Set(keys).size).toBe(14)
    const times = items.map(({ capturedAt }) => capturedAt.getTime())
    expect(times).toEqual([...times].sort((a, b) => (order === 'asc' ? a - b : b - a)))
  }
})

it('a window holds what is at its beginning and not what is at its end', async () => {
  for (const at of [1_000, 2_000, 3_000]) await write(device.componentId, now - at, { temperature: at })
  const page = await read({ from: iso(now - 3_000), to: iso(now - 1_000), order: 'asc' })
  expect(page.items.map(({ metrics }) => metrics.temperature)).toEqual([3_000, 2_000])
})

it('one component can be asked for', async () => {
  await write(device.componentId, now, { temperature: 1 })
  await write(second, now, { temperature: 2 })
  expect((await read({ component: 'second' })).items).toMatchObject([
    { component: 'second', metrics: { temperature: 2 } },
  ])
  expect((await read({ component: 'none' })).items).toEqual([])
})

it('a window that is empty or too long is refused', async () => {
  await expect(read({ from: iso(now), to: iso(now - 1) })).rejects.toMatchObject({ code: 'invalid_window' })
  await expect(read({ from: iso(now - 40 * DAY_MS), to: iso(now) })).rejects.toMatchObject({ code: 'invalid_window' })
})

it('a cursor that is none of ours, or of another query, is refused', async () => {
  for (let i = 0; i < 3; i += 1) await write(device.componentId, now - i, { temperature: i })
  const { nextCursor } = await read({ limit: 1 })
  await expect(read({ cursor: 'abc' })).rejects.toMatchObject({ code: 'invalid_cursor' })
  await expect(read({ cursor: nextCursor!, order: 'asc' })).rejects.toMatchObject({ code: 'invalid_cursor' })
})

it('latest is the newest sample of each component, and of this device only', async () => {
  const other = await createTestDevice(pool)
  await write(other.componentId, now, { temperature: 9 })
  await write(device.componentId, now - 20 * DAY_MS, { temperature: 1 })
  await write(second, now - 1_000, { temperature: 2 })
  await write(second, now - 2_000, { temperature: 3 })
  expect(await service.latest(device.deviceId)).toMatchObject([
    { component: 'second', metrics: { temperature: 2 } },
    { component: 'sensor', metrics: { temperature: 1 } },
  ])
})

it('the upkeep makes partitions ahead, drops those past every retention, and deletes what an organization keeps less of', async () => {
  await pool.query('DELETE FROM telemetry')
  const brief = await createTestDevice(pool, { retentionDays: 2 })
  for (const days of [1, 5, 89, 95]) {
    await write(device.componentId, now - days * DAY_MS, { temperature: days })
    await write(brief.componentId, now - days * DAY_MS, { temperature: days })
  }
  await new TelemetryUpkeep(pool, partitions, silent, () => now).run()
  const left = async (componentId: number) =>
    (
      await pool.query('SELECT metrics FROM telemetry WHERE component_id = $1 ORDER BY captured_at DESC', [componentId])
    ).rows.map((row) => row.metrics.temperature)
  expect(await left(device.componentId)).toEqual([1, 5, 89])
  expect(await left(brief.componentId)).toEqual([1])
  const name = (at: number) => `telemetry_${new Date(at).toISOString().slice(0, 10).replaceAll('-', '')}`
  const { rows } = await pool.query('SELECT to_regclass($1) AS ahead, to_regclass($2) AS old', [
    name(now + 7 * DAY_MS),
    name(now - 95 * DAY_MS),
  ])
  expect(rows).toEqual([{ ahead: name(now + 7 * DAY_MS), old: null }])
})

const read = (query: object) => service.range(device.deviceId, telemetryQuery.parse(query))

const iso = (at: number) => new Date(at).toISOString()

async function write(componentId: number, at: number, metrics: object): Promise<void> {
  await partitions.ensure([at])
  await pool.query('INSERT INTO telemetry VALUES ($1, $2, $3)', [componentId, new Date(at), metrics])
}
