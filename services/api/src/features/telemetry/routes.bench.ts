import type { Pool, PoolClient } from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { doubleArray, intArray, jsonbArray } from '../../database/binary-array'
import { backendCpuMicros, withBenchDatabase } from '../../testing/bench-database'
import { attachComponent, createTestDevice } from '../../testing/fleet'
import { INSERT_TELEMETRY, UPSERT_TELEMETRY } from './ingest.store'

/**
 * The ways by which a batch of new rows can come into the table, in turns: what each costs PostgreSQL a row.
 * CPU is that of the backend, from /proc (Linux); fsync is on.
 * node --conditions=source --import tsx services/api/src/features/telemetry/routes.bench.ts
 */
const TURNS = 5
const BATCHES = 100
const ROWS = 1_000
const COMPONENTS = 320

interface Row {
  readonly componentId: number
  /** Epoch milliseconds. */
  readonly at: number
  readonly json: string
}
type Route = (client: PoolClient, rows: readonly Row[]) => Promise<unknown>

const columns = (rows: readonly Row[]): Buffer[] => [
  intArray(rows.map((row) => row.componentId)),
  doubleArray(rows.map((row) => row.at)),
  jsonbArray(rows.map((row) => row.json)),
]
const statement =
  (name: string, text: string, ...more: unknown[]): Route =>
  (client, rows) =>
    client.query({ name, text, values: [...columns(rows), ...more] })

const ROUTES: Readonly<Record<string, Route>> = {
  insert: statement('insert', INSERT_TELEMETRY),
  'insert, do nothing': statement('nothing', `${INSERT_TELEMETRY} ON CONFLICT DO NOTHING`),
  upsert: statement('upsert', UPSERT_TELEMETRY, false),
  'binary COPY': (client, rows) =>
    new Promise((resolve, reject) => {
      const copy = client.query(copyFrom('COPY telemetry (component_id, captured_at, metrics) FROM STDIN BINARY'))
      copy.on('error', reject).on('finish', resolve).end(copyOf(rows))
    }),
}

/** The binary format of COPY: a head, the rows, an end. */
function copyOf(rows: readonly Row[]): Buffer {
  const bytes = Buffer.alloc(21 + rows.reduce((size, row) => size + 27 + Buffer.byteLength(row.json), 0))
  let at = bytes.write('PGCOPY\n\xff\r\n\0', 'latin1') + 8
  for (const { componentId, at: epochMs, json } of rows) {
    at = bytes.writeInt16BE(3, at)
    at = bytes.writeInt32BE(componentId, bytes.writeInt32BE(4, at))
    at = bytes.writeBigInt64BE(BigInt(epochMs - YEAR_2000_MS) * 1_000n, bytes.writeInt32BE(8, at))
    at = bytes.writeInt32BE(Buffer.byteLength(json) + 1, at)
    at = bytes.writeInt8(1, at)
    at += bytes.write(json, at)
  }
  bytes.writeInt16BE(-1, at)
  return bytes
}

const YEAR_2000_MS = Date.parse('2000-01-01T00:00:00Z')

async function run(pool: Pool): Promise<void> {
  const { deviceId, supportedComponentId } = await createTestDevice(pool)
  const components: number[] = []
  for (let i = 0; i < COMPONENTS; i++) {
    components.push(await attachComponent(pool, deviceId, supportedComponentId, `sensor-${i}`))
  }
  for (const day of [0, 1])
    await pool.query("SELECT ensure_telemetry_partition((now() AT TIME ZONE 'UTC')::date - $1::int)", [day])
  const client = await pool.connect()
  const costs = new Map<string, number[]>()
  for (let turn = 0; turn < TURNS; turn++) {
    for (const [name, route] of Object.entries(ROUTES)) {
      costs.set(name, [...(costs.get(name) ?? []), await measured(client, components, route)])
    }
  }
  client.release()
  for (const [name, each] of costs) {
    const sorted = [...each].sort((a, b) => a - b)
    const shown = [sorted[TURNS >> 1], sorted[0], sorted.at(-1)].map((micros = Number.NaN) => micros.toFixed(1))
    process.stdout.write(`${name}: ${shown[0]} µs of CPU a row (${shown[1]} to ${shown[2]})\n`)
  }
}

/** @returns microseconds of the backend's CPU a row */
async function measured(client: PoolClient, components: readonly number[], route: Route): Promise<number> {
  await client.query('TRUNCATE telemetry')
  await client.query('CHECKPOINT')
  let at = Date.now() - 600_000
  const batches = Array.from({ length: BATCHES }, () =>
    Array.from({ length: ROWS }, (_, i): Row => {
      at += 1
      const json = `{"temperature":${20.5 + (i % 10)},"humidity":50.25,"pressure":1013.2,"voltage":3.31,"heater_on":${i % 2 === 0}}`
      return { componentId: components[i % COMPONENTS] ?? 0, at, json }
    }).sort((a, b) => a.componentId - b.componentId || a.at - b.at),
  )
  const before = await backendCpuMicros(client)
  for (const batch of batches) {
    await client.query('BEGIN')
    await route(client, batch)
    await client.query('COMMIT')
  }
  return ((await backendCpuMicros(client)) - before) / BATCHES / ROWS
}

void withBenchDatabase(run)
