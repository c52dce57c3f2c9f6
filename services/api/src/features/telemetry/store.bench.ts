import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { backendCpuMicros, withBenchDatabase } from '../../testing/bench-database'
import { attachComponent, createTestDevice } from '../../testing/fleet'
import { testIngestion } from '../../testing/ingestion'
import { batchOf, reportOf } from '../../testing/reports'
import { Rollups } from '../rollups/rollups'
import { QueryStore } from './query.store'

/**
 * What the store costs beside the rows themselves: the record of a batch, folding, roll-ups; and how long it takes to
 * read latest values through the index. CPU is that of PostgreSQL's processes, from /proc (Linux).
 * node --conditions=source --import tsx services/api/src/features/telemetry/store.bench.ts
 */
const BATCHES = 120
const BATCH = 500
const COMPONENTS = 100
const DAYS = 90

async function run(pool: Pool): Promise<void> {
  const home = await createTestDevice(pool)
  const devices: string[] = []
  for (let i = 0; i < COMPONENTS; i += 1) {
    const id = randomUUID()
    await pool.query('INSERT INTO devices (id, organization_id, blueprint_id, name) VALUES ($1, $2, $3, $4)', [
      id,
      home.organizationId,
      home.blueprintId,
      id,
    ])
    await attachComponent(pool, id, home.supportedComponentId, 'sensor')
    devices.push(id)
  }
  const ingestion = testIngestion(pool)
  const begin = Date.now() - 3_600_000
  let sequence = 0
  const batches = Array.from({ length: BATCHES }, () =>
    batchOf(
      Array.from({ length: BATCH }, () => {
        sequence += 1
        const deviceId = devices[sequence % COMPONENTS] ?? ''
        const values = { temperature: 20 + (sequence % 10), humidity: 50, heater_on: sequence % 2 === 0 }
        return reportOf(deviceId, values, {
          component: 'sensor',
          at: begin + Math.floor(sequence / COMPONENTS) * 100,
          sequence: Math.floor(sequence / COMPONENTS),
        })
      }),
    ),
  )
  const reports = BATCHES * BATCH
  await ingestion.service.ingest(batches.shift() ?? batchOf([]))
  await measured('ingest (rows and record)', pool, reports - BATCH, async () => {
    for (const batch of batches) await ingestion.service.ingest(batch)
  })
  await measured('fold counts, sequences, dirty minutes', pool, reports, () => ingestion.folding())
  await measured('roll-ups', pool, reports, async () => {
    await new Rollups(pool, console as never).run()
  })
  await latest(pool, devices)
}

/** One row a day on each of 90 days, then the latest of a component that reports now, and of one that fell silent. */
async function latest(pool: Pool, devices: readonly string[]): Promise<void> {
  for (let day = 0; day < DAYS; day += 1) {
    await pool.query(`SELECT ensure_telemetry_partition((now() AT TIME ZONE 'UTC')::date - $1::int)`, [day])
  }
  await pool.query(
    `INSERT INTO telemetry SELECT id, now() - make_interval(days => d), '{"temperature":1}' FROM component_instances, generate_series(1, $1) d ON CONFLICT DO NOTHING`,
    [DAYS - 1],
  )
  const silent = devices[0] ?? ''
  await pool.query(
    `DELETE FROM telemetry WHERE component_id IN (SELECT id FROM component_instances WHERE device_id = $1)
        AND captured_at > now() - interval '88 days'`,
    [silent],
  )
  await pool.query('ANALYZE')
  const store = new QueryStore(pool)
  for (const [name, deviceId] of [
    ['reports now', devices[1] ?? ''],
    ['silent for 88 days', silent],
  ] as const) {
    const times: number[] = []
    for (let i = 0; i < 200; i += 1) {
      const startedAt = performance.now()
      const found = await store.latest(deviceId)
      times.push(performance.now() - startedAt)
      if (found.length === 0) throw new Error('the latest value is missing')
    }
    times.sort((a, b) => a - b)
    const at = (share: number) => `${(times[Math.floor(times.length * share)] ?? 0).toFixed(2)} ms`
    process.stdout.write(`latest, ${DAYS} partitions, ${name}: p50 ${at(0.5)}, p99 ${at(0.99)}\n`)
  }
}

async function measured(what: string, pool: Pool, reports: number, work: () => Promise<void>): Promise<void> {
  const before = { at: performance.now(), cpu: await backendCpuMicros(pool) }
  await work()
  const wall = ((performance.now() - before.at) * 1_000) / reports
  const cpu = ((await backendCpuMicros(pool)) - before.cpu) / reports
  process.stdout.write(`${what}: ${wall.toFixed(1)} µs a report, backend CPU ${cpu.toFixed(1)} µs\n`)
}

void withBenchDatabase(run)
