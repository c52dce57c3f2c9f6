import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import type { PlainMessage } from '@ares/proto/plain-telemetry'
import { Pool } from 'pg'
import { createTestDevice, type TestDevice } from '../../testing/fleet'
import { testIngestion } from '../../testing/ingestion'
import { batchOf, reportOf } from '../../testing/reports'

/** Listeners share the messages of a device in any way, and a fault delivers some again to another one. */
let database: TestDatabase
let pool: Pool

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url, max: 8 })
})
afterAll(async () => {
  await pool?.end()
  await database?.drop()
})

const now = Date.now()
const REPORTS = 300

const reportsOf = (device: TestDevice): PlainMessage[] =>
  Array.from({ length: REPORTS }, (_, i) =>
    reportOf(device.deviceId, { temperature: i % 80 }, { component: 'sensor', at: now - i, sequence: i }),
  )

async function stateOf(device: TestDevice) {
  await testIngestion(pool).folding()
  const rows = await pool.query('SELECT captured_at, metrics FROM telemetry WHERE component_id = $1 ORDER BY 1', [
    device.componentId,
  ])
  const ranges = await pool.query('SELECT ranges::text FROM telemetry_sequences WHERE device_id = $1', [
    device.deviceId,
  ])
  const counts = await pool.query(
    `SELECT sum(committed)::int AS committed, sum(received - committed - duplicate - dead_lettered)::int AS open
       FROM telemetry_counts WHERE device_id = $1`,
    [device.deviceId],
  )
  return { rows: rows.rows, ranges: ranges.rows, counts: counts.rows[0] }
}

it('changes nothing: rows, ranges and counts are those of one listener in order', async () => {
  const [alone, shared] = [await createTestDevice(pool), await createTestDevice(pool)]
  await testIngestion(pool).service.ingest(batchOf(reportsOf(alone)))

  let seed = 7
  const random = (below: number) => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % below
  }
  const messages = reportsOf(shared)
  const twice = [...messages, ...messages.filter(() => random(3) === 0)]
  for (let i = twice.length - 1; i > 0; i -= 1) {
    const j = random(i + 1)
    ;[twice[i], twice[j]] = [twice[j]!, twice[i]!]
  }
  const listeners = [testIngestion(pool).service, testIngestion(pool).service, testIngestion(pool).service]
  await Promise.all(
    listeners.map(async (listener, index) => {
      const mine = twice.filter((_, i) => i % listeners.length === index)
      while (mine.length > 0) await listener.ingest(batchOf(mine.splice(0, 1 + random(25))))
    }),
  )

  const [one, many] = [await stateOf(alone), await stateOf(shared)]
  expect(one.rows).toHaveLength(REPORTS)
  expect(many).toEqual(one)
  expect(many.counts).toEqual({ committed: REPORTS, open: 0 })
})
