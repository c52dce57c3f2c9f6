import type { Pool, PoolClient } from 'pg'
import { doubleArray, intArray, jsonbArray } from '../../database/binary-array'
import { describeError, isDatabaseAway, isDataFault } from '../../database/faults'
import { type BatchRecord, correctionOf, type RecordedMessage, type ReplayFate, recordOf } from './batch-record'
import type { Fate, PendingDeadLetter, PendingRow, PendingRows } from './ingest.batch'
import type { Partitions } from './partitions'

/** What one transaction writes. */
export interface Batch {
  /** Names the batch; the same one when it is sent again. */
  readonly batchId: string
  readonly rows: PendingRows
  readonly deadLetters: readonly PendingDeadLetter[]
  /** Every message of the batch, for the counts; its position is the one that rows and dead letters name. */
  readonly messages: readonly RecordedMessage[]
  /** Positions of the messages that became dead letters. */
  readonly dead: ReadonlySet<number>
}

/** Dead letters that are stored after all. */
export interface Replay {
  readonly rows: PendingRows
  /** Their position is the one that rows name. */
  readonly letters: readonly RecordedMessage[]
  /** Marks the letters in the same transaction. @returns positions of those that it could mark */
  mark(client: PoolClient, fates: readonly ReplayFate[]): Promise<ReadonlySet<number>>
}

/** PostgreSQL refused what a message holds: the same batch will never pass. */
export class DataRejected extends Error {
  override name = 'DataRejected'
}

/**
 * Writes batches, each in one transaction: rows of telemetry, dead letters, and the record of the batch as one row (see
 * recordOf), which CountFolding works on later.
 *
 * Reports come a second time after a cut, and then for a while; otherwise hardly ever. So rows are inserted as if nothing
 * were there, which costs PostgreSQL three quarters of an upsert (routes.bench.ts). When something is, the transaction is made
 * again as an upsert, and so are those of the next minute.
 */
export class IngestStore {
  private upsertUntil = 0

  constructor(
    private readonly pool: Pool,
    private readonly partitions: Partitions,
    private readonly now: () => number = Date.now,
  ) {}

  /** @returns the fate of each message, in order
   *  @throws DataRejected  @throws whatever `pg` throws when the store cannot be reached: nothing is known then */
  async commit(batch: Batch): Promise<Fate[]> {
    const rows = batch.rows.merged()
    return this.attempts(rows, (client, route) => write(client, batch, rows, route))
  }

  /** Stores what dead letters hold, and counts those that `mark` marks as committed or duplicate instead of dead.
   *  @returns what became of each letter, in order; undefined: another replay was there first
   *  @throws as `commit` */
  async replay({ rows: pending, letters, mark }: Replay): Promise<Array<ReplayFate | undefined>> {
    const rows = pending.merged()
    return this.attempts(rows, async (client) => {
      const stored = await upsertRows(client, rows)
      const fates = letters.map((_, position): ReplayFate => (stored.has(position) ? 'committed' : 'duplicate'))
      const marked = await mark(client, fates)
      const kept = fates.map((fate, position) => (marked.has(position) ? fate : undefined))
      await writeRecord(client, correctionOf(letters, kept, rows))
      return kept
    })
  }

  private async attempts<T>(
    rows: readonly PendingRow[],
    work: (client: PoolClient, route: Route) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      await this.partitions.ensure(rows.map((row) => row.capturedAt))
      const route = this.now() < this.upsertUntil ? 'upsert' : 'insert'
      try {
        return await this.transaction((client) => work(client, route))
      } catch (error) {
        if (route === 'insert' && describeError(error).code === UNIQUE_VIOLATION) {
          this.upsertUntil = this.now() + UPSERT_FOR_MS
          continue
        }
        const fault = faultOf(error)
        if (fault === 'data') throw new DataRejected(describeError(error).message, { cause: error })
        if (fault === 'other' || attempt === MAX_ATTEMPTS) throw error
        if (fault === 'no_partition') this.partitions.forget() // dropped since we made it
      }
    }
  }

  private async transaction<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.pool.connect()
    let broken: Error | undefined
    try {
      await client.query('BEGIN')
      const result = await work(client)
      await client.query('COMMIT')
      return result
    } catch (error) {
      broken = await rollBack(client, error)
      throw error
    } finally {
      client.release(broken)
    }
  }
}

/** @returns why the connection cannot be used again, if so */
async function rollBack(client: PoolClient, reason: unknown): Promise<Error | undefined> {
  // A statement that timed out may still be running: a ROLLBACK would only wait behind it.
  if (isDatabaseAway(reason)) return new Error('the connection is given up', { cause: reason })
  try {
    await client.query('ROLLBACK')
    return undefined
  } catch (error) {
    return new Error('the connection cannot roll back', { cause: error })
  }
}

const MAX_ATTEMPTS = 4

type Route = 'insert' | 'upsert'

const UNIQUE_VIOLATION = '23505'
const UPSERT_FOR_MS = 60_000

async function write(client: PoolClient, batch: Batch, rows: readonly PendingRow[], route: Route): Promise<Fate[]> {
  const stored = route === 'insert' ? await insertRows(client, rows) : await upsertRows(client, rows)
  if (batch.deadLetters.length > 0) await writeDeadLetters(client, batch.batchId, batch.deadLetters)
  const fates = batch.messages.map((_, position): Fate => {
    if (batch.dead.has(position)) return 'dead_lettered'
    return stored.has(position) ? 'committed' : 'duplicate'
  })
  await writeRecord(client, recordOf(batch.messages, fates, rows))
  return fates
}

async function writeRecord(client: PoolClient, { counts, sequences, dirty }: BatchRecord): Promise<void> {
  await client.query({ name: 'ingest-record', text: INSERT_RECORD, values: [counts, sequences, dirty] })
}

/** @returns positions of the messages of which at least one value was new: of all that say something for the first time
 *  @throws what `pg` throws for a unique violation when a row is there already */
async function insertRows(client: PoolClient, rows: readonly PendingRow[]): Promise<Set<number>> {
  if (rows.length > 0) await client.query({ name: 'ingest-insert', text: INSERT_TELEMETRY, values: columnsOf(rows) })
  const stored = new Set<number>()
  for (const row of rows) addContributors(stored, row, [])
  return stored
}

/** @returns positions of the messages of which at least one value was new */
async function upsertRows(client: PoolClient, rows: readonly PendingRow[]): Promise<Set<number>> {
  const stored = new Set<number>()
  if (rows.length === 0) return stored
  const merged = rows.some((row) => row.more)
  const result = await client.query<{ total: number; written: readonly WrittenRow[] | null }>({
    name: 'ingest-upsert',
    text: UPSERT_TELEMETRY,
    values: [...columnsOf(rows), merged],
  })
  const { total, written } = result.rows[0] ?? { total: 0, written: null }
  if (total === rows.length && !merged) return new Set(rows.map((row) => row.message))
  const byKey = new Map(rows.map((row) => [`${row.componentId}:${row.capturedAt}`, row]))
  for (const [componentId, capturedAt, before] of written ?? []) {
    const row = byKey.get(`${componentId}:${capturedAt}`)
    if (row) addContributors(stored, row, before ?? [])
  }
  return stored
}

const columnsOf = (rows: readonly PendingRow[]): Buffer[] => [
  intArray(rows.map((row) => row.componentId)),
  doubleArray(rows.map((row) => row.capturedAt)),
  jsonbArray(rows.map((row) => JSON.stringify(row.metrics))),
]

/** Component, instant in epoch milliseconds, and (in a batch with merged rows) the metrics that were there before. */
type WrittenRow = readonly [number, number, readonly string[] | null]

/** A row that was written has something new; where several messages share it, what was there before tells whose it is. */
function addContributors(stored: Set<number>, row: PendingRow, before: readonly string[]): void {
  if (!row.more) {
    stored.add(row.message)
    return
  }
  const isNew = (name: string) => !before.includes(name)
  const later = new Set(row.more.flatMap(({ names }) => names))
  if (Object.keys(row.metrics).some((name) => !later.has(name) && isNew(name))) stored.add(row.message)
  for (const { message, names } of row.more) if (names.some(isNew)) stored.add(message)
}

async function writeDeadLetters(
  client: PoolClient,
  batchId: string,
  letters: readonly PendingDeadLetter[],
): Promise<void> {
  await client.query({
    name: 'ingest-dead-letters',
    text: INSERT_DEAD_LETTERS,
    values: [
      batchId,
      letters.map((letter) => letter.index),
      letters.map((letter) => letter.deviceId),
      letters.map((letter) => letter.topic),
      letters.map((letter) => letter.payload),
      letters.map((letter) => letter.reason),
      letters.map((letter) => letter.detail),
      letters.map((letter) => letter.receivedAt),
      letters.map((letter) => letter.organizationId ?? null),
      letters.map((letter) => letter.report ?? null),
    ],
  })
}

function faultOf(error: unknown): 'data' | 'no_partition' | 'again' | 'other' {
  const { code, message } = describeError(error)
  if (code === '40P01' || code === '40001') return 'again' // deadlock, serialization
  // PostgreSQL says check_violation where no partition takes a row; our own tables here have no other check.
  if (code === '23514' && message.includes('no partition of relation')) return 'no_partition'
  if (isDataFault(error)) return 'data'
  return 'other'
}

const PENDING_ROWS = `
    SELECT component_id, to_timestamp(captured_at / 1000), metrics
      FROM unnest($1::int[], $2::float8[], $3::jsonb[]) AS r (component_id, captured_at, metrics)`

export const INSERT_TELEMETRY = `INSERT INTO telemetry (component_id, captured_at, metrics) ${PENDING_ROWS}`

// An update that brings nothing new does not happen, and is not returned. A row that is returned tells nothing about
// insert or update: PostgreSQL has no system columns (xmax) in RETURNING of a partitioned table. What was there before
// comes from the statement's own snapshot: what another transaction writes in the same moment counts as not there.
export const UPSERT_TELEMETRY = `
  WITH written AS (
    INSERT INTO telemetry AS t (component_id, captured_at, metrics) ${PENDING_ROWS}
    ON CONFLICT (component_id, captured_at) DO UPDATE SET metrics = excluded.metrics || t.metrics
      WHERE excluded.metrics || t.metrics <> t.metrics
    RETURNING t.component_id, t.captured_at
  ), total AS (
    SELECT count(*)::int AS total FROM written
  )
  SELECT total,
         CASE WHEN $4::boolean OR total < cardinality($1::int[]) THEN (
           SELECT json_agg(json_build_array(w.component_id, round(extract(epoch FROM w.captured_at) * 1000)::int8,
             CASE WHEN $4::boolean THEN (
               SELECT json_agg(name)
                 FROM telemetry before, jsonb_object_keys(before.metrics) AS name
                WHERE before.component_id = w.component_id AND before.captured_at = w.captured_at) END))
             FROM written w) END AS written
    FROM total`

const INSERT_DEAD_LETTERS = `
  INSERT INTO dead_letters
    (batch_id, batch_index, device_id, topic, payload, reason, detail, received_at, organization_id, report)
  SELECT $1::uuid, batch_index, device_id, topic, payload, reason, detail, to_timestamp(received_at / 1000),
         organization_id, report
    FROM unnest($2::int[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::float8[], $9::uuid[],
                $10::bytea[])
      AS r (batch_index, device_id, topic, payload, reason, detail, received_at, organization_id, report)
  ON CONFLICT (batch_id, batch_index) DO NOTHING`

const INSERT_RECORD = 'INSERT INTO telemetry_count_batches (counts, sequences, dirty) VALUES ($1, $2, $3)'
