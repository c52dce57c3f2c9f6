import { createMetrics } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { TestBroker } from '@ares/emqx/testing'
import { Pool } from 'pg'
import { EmqxManagement } from '../../broker/emqx-management'
import type { TotalLoad } from './control-law'
import { EmqxDevicesBucket } from './devices-bucket'
import { Governor } from './governor'
import { GovernorMemory } from './governor.memory'
import { Leadership } from './leadership'
import { LoadBoard } from './load-board'

const WELL: TotalLoad = { listeners: 2, committedPerSecond: 8_000, heldMessages: 100, window: 4_000, oldestHeldMs: 20 }
const SLOW: TotalLoad = { ...WELL, committedPerSecond: 2_000, heldMessages: 4_000, oldestHeldMs: 2_000 }
const NOBODY: TotalLoad = { listeners: 0, committedPerSecond: 0, heldMessages: 0, window: 0, oldestHeldMs: 0 }

let broker: TestBroker
let database: TestDatabase
let pool: Pool
let bucket: EmqxDevicesBucket
let load: TotalLoad
let logged: string[]

beforeAll(async () => {
  broker = await TestBroker.start()
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url })
  const vault = { read: async () => ({ data: { data: { key: 'ares', secret: 's3cret' } } }) as never }
  bucket = new EmqxDevicesBucket(
    new EmqxManagement({ url: `http://127.0.0.1:${broker.broker.ports.management}`, vault }),
  )
})
afterAll(async () => {
  await pool?.end()
  await database?.drop()
  await broker?.stop()
})
beforeEach(async () => {
  await bucket.write(8_000)
  await pool.query('DELETE FROM governor_memory')
  load = WELL
  logged = []
})

function governor(settings: { floor?: number; maximum?: number } = {}, metrics = createMetrics('test')): Governor {
  const log = (message: string) => void logged.push(message)
  return new Governor(
    { floor: 500, ...settings },
    {
      bucket,
      board: { total: () => load },
      leadership: { mine: true },
      memory: new GovernorMemory(pool),
      logger: { info: log, warn: log } as never,
      metrics,
    },
  )
}

async function ticks(of: Governor, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await of.tick()
}

it('lowers the bucket at the broker by what is committed, and raises it when the cause is gone', async () => {
  const one = governor()
  await ticks(one, 3)
  expect(await bucket.read()).toBe(8_000)
  load = SLOW
  await ticks(one, 8)
  expect(await bucket.read()).toBeCloseTo(1_600, -2)
  load = WELL
  await ticks(one, 10)
  expect(await bucket.read()).toBe(8_000)
  expect(logged).toEqual([
    'governing the rate of the devices',
    'devices are slowed down: the store does not keep up',
    'devices may send more again',
    'devices may send at the full rate again',
  ])
})

it('shows the rate that holds, and how often it was changed, in the metrics', async () => {
  const metrics = createMetrics('test')
  const one = governor({}, metrics)
  await ticks(one, 2)
  load = NOBODY
  await ticks(one, 6)
  const shown = await metrics.metrics()
  expect(shown).toMatch(/^ares_governor_rate(\{[^}]*\})? 500$/m)
  expect(Number(/^ares_governor_changes_total(?:\{[^}]*\})? (\d+)$/m.exec(shown)?.[1])).toBeGreaterThan(0)
})

it('goes to the floor when no listener is there', async () => {
  const one = governor()
  await ticks(one, 2)
  load = NOBODY
  await ticks(one, 6)
  expect(await bucket.read()).toBe(500)
})

it('waits for the listeners after its own start before it thinks that there is none', async () => {
  load = NOBODY
  const one = governor()
  await ticks(one, 8)
  expect(await bucket.read()).toBe(8_000)
  await ticks(one, 10)
  expect(await bucket.read()).toBe(500)
})

it('takes a rate that it lowered itself for nothing else after a restart of api', async () => {
  const one = governor()
  load = SLOW
  await ticks(one, 8)
  load = WELL
  await ticks(governor(), 12)
  expect(await bucket.read()).toBe(8_000)
})

it('sets its rate again after the broker was restarted', async () => {
  const one = governor()
  load = SLOW
  await ticks(one, 9)
  await bucket.write(8_000) // what emqx.conf says
  await ticks(one, 12)
  expect(await bucket.read()).toBeLessThan(2_000)
})

it('takes a rate that somebody sets for the new maximum', async () => {
  const one = governor()
  await ticks(one, 2)
  await bucket.write(3_000)
  await ticks(one, 20)
  expect(await bucket.read()).toBe(3_000)
  load = SLOW
  await ticks(one, 8)
  load = WELL
  await ticks(one, 12)
  expect(await bucket.read()).toBe(3_000)
})

it('goes on, and says so once, when the broker cannot be reached', async () => {
  const one = new Governor(
    { floor: 500 },
    {
      bucket: { read: () => Promise.reject(new Error('away')), write: () => Promise.reject(new Error('away')) },
      board: { total: () => load },
      leadership: { mine: true },
      memory: new GovernorMemory(pool),
      logger: { info() {}, warn: (message: string) => void logged.push(message) } as never,
      metrics: createMetrics('test'),
    },
  )
  await ticks(one, 5)
  expect(logged).toEqual(['the rate of the devices cannot be set'])
})

it('is one replica of api at a time, and goes on while the database is away', async () => {
  const first = new Leadership(database.url, 'test', 20)
  const second = new Leadership(database.url, 'test', 20)
  first.start()
  await until(() => first.mine)
  second.start()
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect(second.mine).toBe(false)
  await first.stop()
  expect(first.mine).toBe(false)
  await until(() => second.mine)
  await pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  )
  expect(second.mine).toBe(true)
  await until(() => second.mine)
  await second.stop()
})

describe('the board', () => {
  const report = (listener: string, more: object = {}) => ({
    listener,
    sessionUp: true,
    heldMessages: 10,
    window: 2_000,
    oldestHeldMs: 5,
    committed: 500,
    intervalMs: 1_000,
    ...more,
  })

  it('adds up those that have reported within 3 s and have a session', () => {
    let now = 0
    const board = new LoadBoard(undefined, () => now)
    board.report(report('a', { oldestHeldMs: 70 }))
    board.note(report('b', { intervalMs: 500 }))
    board.report(report('c', { sessionUp: false, heldMessages: 999 }))
    expect(board.total()).toEqual({
      listeners: 2,
      committedPerSecond: 1_500,
      heldMessages: 20,
      window: 4_000,
      oldestHeldMs: 70,
    })
    now = 3_001
    expect(board.total()).toMatchObject({ listeners: 0, oldestHeldMs: 0 })
  })

  it('has one keeper, who keeps his place for as long as he may believe in it', () => {
    let now = 0
    const board = new LoadBoard(undefined, () => now)
    expect(board.report(report('a'))).toEqual({ listeners: 1, hasKeeper: false })
    expect(board.report(report('b'))).toEqual({ listeners: 2, hasKeeper: true })
    now = 59_000
    expect(board.report(report('b'))).toMatchObject({ hasKeeper: true })
    now = 61_000
    expect(board.report(report('b'))).toMatchObject({ hasKeeper: false })
    expect(board.report(report('a'))).toMatchObject({ hasKeeper: true })
  })
})
