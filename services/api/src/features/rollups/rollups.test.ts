import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { testIngestion } from '../../testing/ingestion'
import { batchOf, reportOf } from '../../testing/reports'
import { Partitions } from '../telemetry/partitions'
import { TelemetryUpkeep } from '../telemetry/telemetry.upkeep'
import { Rollups } from './rollups'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let ingestion: ReturnType<typeof testIngestion>
/** Begin of an hour that is over. */
const hour = Math.floor((Date.now() - 3 * HOUR_MS) / HOUR_MS) * HOUR_MS

beforeAll(async () => {
  api = await startTestApi()
})
afterAll(() => api?.stop())
beforeEach(async () => {
  home = await furnish(api)
  ingestion = testIngestion(api.context.database.pool)
})

const silent = { info() {}, warn() {} } as never
const ingest = (...messages: Parameters<typeof batchOf>[0]) => ingestion.service.ingest(batchOf(messages))
const report = (temperature: number, at: number) => reportOf(home.device.id, { temperature }, { at })

async function rollUp(now = Date.now()): Promise<number> {
  await ingestion.folding()
  return new Rollups(api.context.database.pool, silent, () => now).run()
}

async function read(query: string) {
  const path = `/devices/${home.device.id}/telemetry/rollups?${query}`
  const { status, body } = await api.call('get', path, { token: home.owner.token })
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body
}

const shown = ({ bucket, count, minimum, maximum, sum, last }: Record<string, number | string>) => [
  (Date.parse(String(bucket)) - hour) / MINUTE_MS,
  count,
  minimum,
  maximum,
  sum,
  last,
]
const buckets = async (resolution: '1m' | '1h') =>
  (await read(`resolution=${resolution}&metric=temperature`)).items.map(shown)

it('count, minimum, maximum, sum and the last value, by minute and hour', async () => {
  await ingest(report(5, hour + 30_000), report(-1, hour), report(3, hour + 59_999), report(7, hour + MINUTE_MS))
  await rollUp()
  expect(await buckets('1m')).toEqual([
    [0, 3, -1, 5, 7, 3],
    [1, 1, 7, 7, 7, 7],
  ])
  expect(await buckets('1h')).toEqual([[0, 4, -1, 7, 14, 7]])
})

it('are corrected by what comes late, in whatever order', async () => {
  await ingest(report(1, hour + 10_000))
  await rollUp()
  await ingest(report(2, hour + 5_000), report(3, hour + 50 * MINUTE_MS))
  await rollUp()
  await ingest(report(9, hour + 20_000))
  await rollUp()
  expect(await buckets('1m')).toEqual([
    [0, 3, 1, 9, 12, 9],
    [50, 1, 3, 3, 3, 3],
  ])
  expect(await buckets('1h')).toEqual([[0, 4, 1, 9, 15, 3]])
})

it('count nothing twice when it is delivered again', async () => {
  const batch = batchOf([report(1, hour), report(2, hour + 1)])
  for (let i = 0; i < 3; i += 1) {
    await ingestion.service.ingest(batch)
    await rollUp()
  }
  expect(await buckets('1h')).toEqual([[0, 2, 1, 2, 3, 2]])
})

it('know booleans as 0 and 1, and leave texts out', async () => {
  await ingest(
    reportOf(home.device.id, { heater_on: true }, { at: hour }),
    reportOf(home.device.id, { heater_on: false }, { at: hour + 1 }),
  )
  await rollUp()
  expect((await read('resolution=1m')).items).toEqual([
    expect.objectContaining({ component: 'dht22-1', metric: 'heater_on', count: 2, sum: 1, last: 0 }),
  ])
})

it('of a minute that has not ended wait until it has', async () => {
  const minute = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS
  await ingest(report(1, minute))
  expect(await rollUp(minute + 59_000)).toBe(0)
  expect(await rollUp(minute + 69_999)).toBe(0)
  expect(await rollUp(minute + 70_000)).toBe(1)
  expect(await rollUp(minute + 80_000)).toBe(0)
})

it('are right while batches and roll-ups run at once', async () => {
  let isDone = false
  const rolling = (async () => {
    while (!isDone) await rollUp()
  })()
  const writers = Array.from({ length: 3 }, async (_, writer) => {
    for (let i = 0; i < 15; i += 1) await ingest(report(1, hour + writer * 1_000 + i), report(1, hour + MINUTE_MS + i))
  })
  await Promise.all(writers)
  isDone = true
  await rolling
  await rollUp()
  expect(await buckets('1m')).toEqual([
    [0, 45, 1, 1, 45, 1],
    [1, 15, 1, 1, 15, 1],
  ])
})

it('are read page by page', async () => {
  await ingest(...Array.from({ length: 7 }, (_, i) => report(i, hour + i * MINUTE_MS)))
  await rollUp()
  const seen: unknown[] = []
  let cursor: string | null = ''
  do {
    const page: { items: Record<string, number>[]; nextCursor: string | null } = await read(
      `resolution=1m&limit=3${cursor ? `&cursor=${cursor}` : ''}`,
    )
    seen.push(...page.items.map((item) => item.last))
    cursor = page.nextCursor
  } while (cursor)
  expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6])
})

it('end with the retention of the organization, and those of a component that is gone as well', async () => {
  const { pool } = api.context.database
  const old = hour - 5 * 24 * HOUR_MS
  await ingest(report(1, old), report(2, hour))
  await rollUp()
  await pool.query('UPDATE organizations SET telemetry_retention_days = 2 WHERE id = $1', [home.organization.id])
  await pool.query(
    `INSERT INTO telemetry_rollups_1h SELECT 2000000000, bucket, metric, 1, 1, 1, 1, 1 FROM telemetry_rollups_1h LIMIT 1`,
  )
  await new TelemetryUpkeep(pool, new Partitions(pool), silent).run()
  expect((await read(`resolution=1m&from=${new Date(old).toISOString()}`)).items.map(shown)).toEqual([
    [0, 1, 2, 2, 2, 2],
  ])
  expect(await buckets('1h')).toHaveLength(2)
  const { rows } = await pool.query('SELECT 1 FROM telemetry_rollups_1h WHERE component_id = 2000000000')
  expect(rows).toEqual([])
})
