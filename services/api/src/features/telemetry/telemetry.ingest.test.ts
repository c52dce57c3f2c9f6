import { randomUUID } from 'node:crypto'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { type PlainRequest, plainRequest } from '@ares/proto/plain-telemetry'
import { Message, type MetricValue, Report, Result } from '@ares/proto/telemetry/v1/telemetry'
import { Pool } from 'pg'
import { Notifications } from '../../database/notifications'
import { attachComponent, createTestDevice, type TestDevice } from '../../testing/fleet'
import { CountFolding } from './count-folding'
import { HardwareCache } from './hardware.cache'
import { followHardware } from './hardware.notifications'
import { HardwareStore } from './hardware.store'
import { IngestStore } from './ingest.store'
import { LastSeen } from './last-seen'
import { Partitions } from './partitions'
import { IngestService } from './telemetry.ingest'

const silent = { info() {}, warn() {} } as never
const HOUR_MS = 3_600_000
const { RESULT_COMMITTED: COMMITTED, RESULT_DUPLICATE: DUPLICATE, RESULT_DEAD_LETTERED: DEAD } = Result

let database: TestDatabase
let pool: Pool
let device: TestDevice
let notifications: Notifications
let lastSeen: LastSeen
let cache: HardwareCache
let service: IngestService

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url })
  notifications = new Notifications({ connectionString: database.url, logger: silent, retryMs: 50 })
  cache = new HardwareCache(new HardwareStore(pool), { recheckAfterMs: 60_000, staleAfterMs: 60_000 })
  followHardware(cache, notifications)
  await notifications.start()
  lastSeen = new LastSeen(pool, { logger: silent, flushMs: 60_000 })
})
afterAll(async () => {
  await notifications?.stop()
  await lastSeen?.stop()
  await pool?.end()
  await database?.drop()
})
beforeEach(async () => {
  device = await createTestDevice(pool)
  service = new IngestService(cache, new IngestStore(pool, new Partitions(pool)), lastSeen)
})

describe('a report', () => {
  it('becomes one row with its values', async () => {
    const at = Date.now() - 1_000
    const answer = await ingest([
      report({ temperature: 25.5, heater_on: true, note: 'a "quoted" \\ ünïcode 𝄞' }, { at }),
    ])
    expect(answer.results).toEqual([COMMITTED])
    expect(await rows()).toEqual([
      { at, metrics: { temperature: 25.5, heater_on: true, note: 'a "quoted" \\ ünïcode 𝄞' } },
    ])
  })

  it('keeps every finite number as it is', async () => {
    const numbers = [0, -0, 5e-324, 1.7976931348623157e308, -1e21, 0.1, Number.MAX_SAFE_INTEGER]
    const at = Date.now()
    await ingest(numbers.map((humidity, i) => report({ humidity }, { at: at - i })))
    expect((await rows()).map((row) => row.metrics.humidity).reverse()).toEqual(numbers.map((n) => n + 0))
  })

  it('with samples becomes a row for each, and counts as one message', async () => {
    const at = Date.now()
    const sample = (metrics: Record<string, MetricValue>, capturedAt: number) => ({
      component: '',
      timestamp: new Date(capturedAt),
      metrics,
    })
    const samples = [sample(values({ temperature: 1 }), at), sample(values({ temperature: 2 }), at - 1)]
    const answer = await ingest([message(Report.fromPartial({ component: 'sensor', samples, sequence: 7n }))])
    expect(answer.results).toEqual([COMMITTED])
    expect(answer.receipts).toEqual([{ deviceId: device.deviceId, sequences: [7n] }])
    expect(await rows()).toHaveLength(2)
    expect(await counts()).toMatchObject({ received: 1, committed: 1 })
  })

  it('takes the time of receipt when it has none', async () => {
    const receivedAt = new Date(Date.now() - 5_000)
    await ingest([
      { ...message(Report.fromPartial({ component: 'sensor', metrics: values({ humidity: 1 }) })), receivedAt },
    ])
    expect(await rows()).toEqual([{ at: receivedAt.getTime(), metrics: { humidity: 1 } }])
  })
})

describe('the same again', () => {
  it('is a duplicate, with the same receipts, and the row is as before', async () => {
    const batch = request([
      report({ temperature: 1 }, { sequence: 1n }),
      report({ temperature: 2 }, { at: Date.now() - 10, sequence: 2n }),
    ])
    const first = await service.ingest(batch)
    const before = await rows()
    const second = await service.ingest(batch)
    expect(first.results).toEqual([COMMITTED, COMMITTED])
    expect(second.results).toEqual([DUPLICATE, DUPLICATE])
    expect(second.receipts).toEqual([{ deviceId: device.deviceId, sequences: [1n, 2n] }])
    expect(second.receipts).toEqual(first.receipts)
    expect(await rows()).toEqual(before)
    expect(await counts()).toEqual({ received: 4, committed: 2, duplicate: 2, dead_lettered: 0 })
  })

  it('within one batch is a duplicate too', async () => {
    const at = Date.now()
    const answer = await ingest([report({ temperature: 1 }, { at }), report({ temperature: 9 }, { at })])
    expect(answer.results).toEqual([COMMITTED, DUPLICATE])
    expect(await rows()).toEqual([{ at, metrics: { temperature: 1 } }])
  })

  it('does not write a dead letter twice', async () => {
    const batch = request([report({ pressure: 1 })])
    await service.ingest(batch)
    expect((await service.ingest(batch)).results).toEqual([DEAD])
    expect(await deadLetters()).toHaveLength(1)
    expect(await counts()).toEqual({ received: 2, committed: 0, duplicate: 0, dead_lettered: 2 })
  })
})

describe('reports of one component and instant', () => {
  it('are merged inside a batch, and the first value of a metric stands', async () => {
    const at = Date.now()
    const answer = await ingest([
      report({ temperature: 1 }, { at }),
      report({ temperature: 2, humidity: 3 }, { at }),
      report({ humidity: 4 }, { at }),
    ])
    expect(answer.results).toEqual([COMMITTED, COMMITTED, DUPLICATE])
    expect(await rows()).toEqual([{ at, metrics: { temperature: 1, humidity: 3 } }])
  })

  it('are merged with what is stored, and the first value of a metric stands', async () => {
    const at = Date.now()
    await ingest([report({ temperature: 1 }, { at })])
    const answer = await ingest([
      report({ temperature: 2, humidity: 3 }, { at }),
      report({ humidity: 3 }, { at: at - 1 }),
    ])
    expect(answer.results).toEqual([COMMITTED, COMMITTED])
    expect((await rows()).at(-1)).toEqual({ at, metrics: { temperature: 1, humidity: 3 } })
  })

  it('are committed or duplicate each by what was new in it', async () => {
    const at = Date.now()
    await ingest([report({ temperature: 1 }, { at })])
    const answer = await ingest([
      report({ temperature: 2 }, { at }),
      report({ humidity: 3 }, { at }),
      report({ humidity: 4, heater_on: true }, { at }),
      report({ heater_on: false }, { at }),
    ])
    expect(answer.results).toEqual([DUPLICATE, COMMITTED, COMMITTED, DUPLICATE])
    expect(await rows()).toEqual([{ at, metrics: { temperature: 1, humidity: 3, heater_on: true } }])
  })
})

describe('what cannot be stored', () => {
  const day = 24 * HOUR_MS
  it.each([
    ['unknown_component', () => report({ temperature: 1 }, { component: 'other' })],
    ['unknown_metric', () => report({ pressure: 1 })],
    ['unknown_metric', () => report({ temperature: 1, constructor: 2 })],
    ['wrong_type', () => report({ temperature: true })],
    ['wrong_type', () => report({ heater_on: 1 })],
    ['wrong_type', () => report({ note: 5 })],
    ['out_of_range', () => report({ temperature: 85.01 })],
    ['out_of_range', () => report({ temperature: -40.01 })],
    ['bad_value', () => report({ humidity: Number.NaN })],
    ['bad_value', () => report({ humidity: Number.POSITIVE_INFINITY })],
    ['bad_value', () => report({ note: 'a\u0000b' })],
    ['bad_value', () => report({ note: 'ü'.repeat(513) })],
    ['too_far_ahead', () => report({ temperature: 1 }, { at: Date.now() + 5 * 60_000 + 2_000 })],
    ['too_far_ahead', () => report({ temperature: 1 }, { at: Number.NaN })],
    ['too_old', () => report({ temperature: 1 }, { at: Date.now() - 90 * day - 2_000 })],
    ['empty', () => report({})],
    ['unknown_device', () => report({ temperature: 1 }, { deviceId: randomUUID() })],
    ['unknown_device', () => report({ temperature: 1 }, { deviceId: 'not-a-uuid' })],
    ['too_deep', () => undecodable('too_deep')],
  ])('is a dead letter: %s', async (reason, build) => {
    const bad = build()
    const answer = await ingest([report({ temperature: 1 }), bad, report({ humidity: 2 }, { at: Date.now() - 50 })])
    expect(answer.results).toEqual([COMMITTED, DEAD, COMMITTED])
    expect(answer.refusals).toEqual([
      { index: 1, reason, detail: expect.any(String), notifyDevice: bad.deviceId === device.deviceId },
    ])
    const [letter] = await deadLetters(bad.deviceId)
    expect(letter).toMatchObject({ reason, payload: bad.payload, topic: `ares4/${bad.deviceId}/telemetry` })
  })

  it('takes the whole report with it: nothing of it is stored', async () => {
    const answer = await ingest([report({ temperature: 1, humidity: 2, pressure: 3 }, { sequence: 5n })])
    expect(answer.results).toEqual([DEAD])
    expect(answer.receipts).toEqual([])
    expect(await rows()).toEqual([])
  })

  it('is found alone when PostgreSQL rejects the batch, and the others are stored', async () => {
    // A fault that our own checks let through, caused in the database: it takes no metric called `humidity` with 666.
    await pool.query(`CREATE OR REPLACE FUNCTION reject_666() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN IF NEW.metrics ->> 'humidity' = '666' THEN RAISE EXCEPTION 'no such number' USING ERRCODE = '22000'; END IF; RETURN NEW; END $$`)
    await pool.query('CREATE TRIGGER reject_666 BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION reject_666()')
    try {
      const at = Date.now()
      const messages = Array.from({ length: 20 }, (_, i) => report({ humidity: i === 13 ? 666 : i }, { at: at - i }))
      const answer = await ingest(messages)
      expect(answer.results).toEqual(messages.map((_, i) => (i === 13 ? DEAD : COMMITTED)))
      expect(answer.refusals).toEqual([
        { index: 13, reason: 'rejected_by_store', detail: 'no such number', notifyDevice: true },
      ])
      expect(await deadLetters()).toHaveLength(1)
      expect(await counts()).toEqual({ received: 20, committed: 19, duplicate: 0, dead_lettered: 1 })
    } finally {
      await pool.query('DROP TRIGGER reject_666 ON telemetry')
    }
  })

  it('is stored even when its own names are not storable', async () => {
    const answer = await ingest([
      report({ temperature: 1 }, { deviceId: 'a\u0000b' }),
      undecodable('x\u0000', 'y\u0000'),
    ])
    expect(answer.results).toEqual([DEAD, DEAD])
  })
})

describe('batches at the same time', () => {
  it('with the same rows in another order do not block each other, and each value is committed once', async () => {
    const at = Date.now() - 10_000
    const messages = Array.from({ length: 300 }, (_, i) => report({ temperature: i % 80 }, { at: at - i }))
    const shuffled = () => [...messages].sort(() => Math.random() - 0.5)
    const answers = await Promise.all(Array.from({ length: 6 }, () => ingest(shuffled())))
    const results = answers.flatMap((answer) => answer.results)
    expect(results.filter((result) => result === COMMITTED)).toHaveLength(300)
    expect(results.filter((result) => result === DUPLICATE)).toHaveLength(1_500)
    expect(await rows()).toHaveLength(300)
    expect(await counts()).toEqual({ received: 1_800, committed: 300, duplicate: 1_500, dead_lettered: 0 })
  })
})

describe('partitions', () => {
  it('are made on demand', async () => {
    const old = Date.now() - 60 * 24 * HOUR_MS
    expect((await ingest([report({ temperature: 1 }, { at: old })])).results).toEqual([COMMITTED])
    expect(await rows()).toEqual([{ at: old, metrics: { temperature: 1 } }])
  })

  it('that were dropped behind our back are made again', async () => {
    const old = Date.now() - 61 * 24 * HOUR_MS
    await ingest([report({ temperature: 1 }, { at: old })])
    const name = `telemetry_${new Date(old).toISOString().slice(0, 10).replaceAll('-', '')}`
    await pool.query(`DROP TABLE ${name}`)
    expect((await ingest([report({ temperature: 1 }, { at: old })])).results).toEqual([COMMITTED])
  })
})

describe('changes of the hardware', () => {
  it('are known to the next report: a component that was attached, a metric whose range changed', async () => {
    const component = { component: 'second' }
    expect((await ingest([report({ temperature: 1 }, component)])).results).toEqual([DEAD])
    await attachComponent(pool, device.deviceId, device.supportedComponentId, 'second')
    await eventually(async () => {
      expect((await ingest([report({ temperature: 1 }, component)])).results).toEqual([COMMITTED])
    })
    await pool.query(`UPDATE metrics SET maximum = 50 WHERE supported_component_id = $1 AND name = 'temperature'`, [
      device.supportedComponentId,
    ])
    await eventually(async () => {
      expect((await ingest([report({ temperature: 60 })])).results).toEqual([DEAD])
    })
  })

  it('reach the cache after the connection that listens was cut', async () => {
    await ingest([report({ temperature: 1 })])
    await pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ares-api-listen' AND datname = current_database()`,
    )
    await pool.query('DELETE FROM component_instances WHERE id = $1', [device.componentId])
    await eventually(async () => {
      expect((await ingest([report({ temperature: 2 })])).results).toEqual([DEAD])
    })
  })
})

it('counts are added up once each, also by two at the same time, and what is read does not change by it', async () => {
  const now = Date.now()
  for (let i = 0; i < 10; i += 1) await ingest([report({ temperature: 1 }, { at: now - i }), report({ x: 1 })])
  const before = await counts()
  const folding = [1, 2].map(() => new CountFolding(pool, { logger: silent, everyMs: 60_000 }))
  await Promise.all(folding.map((one) => one.fold()))
  await Promise.all(folding.map((one) => one.stop()))
  expect(before).toEqual({ received: 20, committed: 10, duplicate: 0, dead_lettered: 10 })
  expect(await counts()).toEqual(before)
  expect(await counts('telemetry_counts')).toEqual(before)
})

it('last-seen is written for devices that exist', async () => {
  const receivedAt = new Date(Date.now() - 1_000)
  await ingest([{ ...report({ temperature: 1 }), receivedAt }, report({ temperature: 1 }, { deviceId: randomUUID() })])
  await lastSeen.flush()
  const { rows: devices } = await pool.query('SELECT last_seen_at FROM devices WHERE id = $1', [device.deviceId])
  expect(devices).toEqual([{ last_seen_at: receivedAt }])
})

it('a device whose blueprint does not ask for receipts gets none, and no errors', async () => {
  device = await createTestDevice(pool, { wantsReceipts: false })
  const answer = await ingest([report({ temperature: 1 }, { sequence: 1n }), report({ pressure: 1 }, { sequence: 2n })])
  expect(answer.receipts).toEqual([])
  expect(answer.refusals).toMatchObject([{ index: 1, notifyDevice: false }])
})

it('a batch that breaks the limits of the contract is refused as a whole', async () => {
  await expect(ingest([])).rejects.toMatchObject({ kind: 'invalid' })
  await expect(service.ingest({ ...request([report({ temperature: 1 })]), batchId: 'x' })).rejects.toMatchObject({
    kind: 'invalid',
  })
})

it('rows are inserted as if nothing were there; when something is, they are upserted, for a minute', async () => {
  const asked: string[] = []
  let now = 0
  const store = new IngestStore(
    watched(pool, (name) => asked.push(name)),
    new Partitions(pool),
    () => now,
  )
  service = new IngestService(cache, store, lastSeen)
  const at = Date.now() - 10_000
  const one = report({ temperature: 1 }, { at })
  const take = async (messages: Message[]) => {
    asked.length = 0
    const { results } = await ingest(messages)
    return { results, routes: asked.filter((name) => name !== 'ingest-record') }
  }
  // Of one instant, twice in one batch: both have something to say that nobody said before.
  const both = [report({ temperature: 1 }, { at: at - 1 }), report({ humidity: 2 }, { at: at - 1 })]
  expect(await take([one, ...both, both[0]!])).toEqual({
    results: [COMMITTED, COMMITTED, COMMITTED, DUPLICATE],
    routes: ['ingest-insert'],
  })
  const more = report({ temperature: 9, humidity: 2 }, { at })
  const fresh = report({ temperature: 1 }, { at: at + 1 })
  expect(await take([one, more, fresh])).toEqual({
    results: [DUPLICATE, COMMITTED, COMMITTED],
    routes: ['ingest-insert', 'ingest-upsert'],
  })
  expect((await rows()).find((row) => row.at === at)?.metrics).toEqual({ temperature: 1, humidity: 2 })
  now = 59_999
  expect(await take([report({ temperature: 1 }, { at: at + 2 })])).toEqual({
    results: [COMMITTED],
    routes: ['ingest-upsert'],
  })
  now = 60_000
  expect(await take([report({ temperature: 1 }, { at: at + 3 })])).toEqual({
    results: [COMMITTED],
    routes: ['ingest-insert'],
  })
})

it('a store that is away is unavailable, and nothing is answered', async () => {
  const away = new Pool({ connectionString: 'postgresql://nobody@127.0.0.1:1/none' })
  const broken = new IngestService(cache, new IngestStore(away, new Partitions(away)), lastSeen)
  await expect(broken.ingest(request([report({ temperature: 1 })]))).rejects.toMatchObject({ kind: 'unavailable' })
  await away.end()
})

/** The pool, and the names of the statements that are sent through it. */
const watched = (real: Pool, onQuery: (name: string) => void): Pool =>
  new Proxy(real, {
    get: (target, key) =>
      key !== 'connect'
        ? Reflect.get(target, key)
        : async () => {
            const client = await target.connect()
            const query = client.query.bind(client) as (what: string | { name: string }, ...rest: never[]) => unknown
            const release = client.release.bind(client)
            const ask = (what: string | { name: string }, ...rest: never[]) => {
              if (typeof what === 'object') onQuery(what.name)
              return query(what, ...rest)
            }
            return Object.assign(Object.create(client), { query: ask, release })
          },
  })

const ingest = (messages: Message[]) => service.ingest(request(messages))

const request = (messages: Message[]): PlainRequest =>
  plainRequest({ batchId: randomUUID(), listener: 'test', messages })

interface ReportOptions {
  readonly at?: number
  readonly component?: string
  readonly sequence?: bigint
  readonly deviceId?: string
}

function report(metrics: Record<string, number | boolean | string>, options: ReportOptions = {}): Message {
  const { at = Date.now(), component = 'sensor', sequence, deviceId } = options
  return message(
    Report.fromPartial({ component, timestamp: new Date(at), metrics: values(metrics), sequence }),
    deviceId,
  )
}

function values(metrics: Record<string, number | boolean | string>): Record<string, MetricValue> {
  const value = (plain: number | boolean | string): MetricValue => {
    if (typeof plain === 'number') return { value: { $case: 'number', value: plain } }
    if (typeof plain === 'boolean') return { value: { $case: 'flag', value: plain } }
    return { value: { $case: 'text', value: plain } }
  }
  return Object.fromEntries(Object.entries(metrics).map(([name, plain]) => [name, value(plain)]))
}

const message = (content: Report, deviceId = device.deviceId): Message =>
  Message.fromPartial({
    deviceId,
    receivedAt: new Date(),
    payload: Buffer.from([0xff, 0x00, 0x7b]),
    content: { $case: 'report', value: content },
  })

const undecodable = (reason: string, detail = 'why'): Message =>
  Message.fromPartial({
    deviceId: device.deviceId,
    receivedAt: new Date(),
    payload: Buffer.from('{{{'),
    content: { $case: 'undecodable', value: { reason, detail } },
  })

async function rows() {
  const { rows: found } = await pool.query<{ captured_at: Date; metrics: Record<string, unknown> }>(
    `SELECT captured_at, metrics FROM telemetry JOIN component_instances c ON c.id = component_id
      WHERE c.device_id = $1 ORDER BY captured_at`,
    [device.deviceId],
  )
  return found.map((row) => ({ at: row.captured_at.getTime(), metrics: row.metrics }))
}

async function deadLetters(deviceId = device.deviceId) {
  return (await pool.query('SELECT * FROM dead_letters WHERE device_id = $1 ORDER BY id', [deviceId])).rows
}

async function counts(table = 'telemetry_counts_now') {
  const { rows: sums } = await pool.query(
    `SELECT sum(received)::int AS received, sum(committed)::int AS committed, sum(duplicate)::int AS duplicate,
            sum(dead_lettered)::int AS dead_lettered FROM ${table} WHERE device_id = $1`,
    [device.deviceId],
  )
  return sums[0]
}

async function eventually(check: () => Promise<void>): Promise<void> {
  const giveUpAt = Date.now() + 10_000
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (Date.now() > giveUpAt) throw error
      await new Promise((later) => setTimeout(later, 20))
    }
  }
}
