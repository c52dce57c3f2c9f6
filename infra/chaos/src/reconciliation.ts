import type { BenchDevice } from '@ares/bench'
import { Client } from 'pg'
import type { DeviceReports } from './publisher'

/** What the publishers know, held against the rows. */
export interface Reconciliation {
  /** Reports that the publishers made, and of these the ones whose word (PUBACK or receipt) they have. */
  readonly published: number
  readonly acknowledged: number
  /** Rows of these publishers. */
  readonly committed: number
  /** Acknowledged, and no row has it. */
  readonly missing: number
  /** Rows whose report has another row already. */
  readonly duplicates: number
  /** Rows that no publisher made. */
  readonly strangers: number
  readonly deadLetters: number
}

/** The rows of one case. Their instants lie in it, and no other case is going on. */
export class CaseRows {
  private constructor(
    private readonly databaseUrl: string,
    private readonly from: Date,
  ) {}

  static since(databaseUrl: string, from: Date): CaseRows {
    return new CaseRows(databaseUrl, from)
  }

  /** Compares, again and again until nothing is missing or `limitMs` have passed. */
  async reconcile(
    devices: readonly BenchDevice[],
    records: readonly DeviceReports[],
    limitMs: number,
  ): Promise<Reconciliation> {
    const giveUpAt = Date.now() + limitMs
    for (;;) {
      const found = await this.compare(devices, records)
      if (found.missing === 0 || Date.now() > giveUpAt) return found
      await new Promise((resolve) => setTimeout(resolve, 1_000))
    }
  }

  /** When the last row was committed that came more than a second late, epoch milliseconds; 0 when none did. */
  async lastLateCommit(): Promise<number> {
    const [row] = await this.query<{ at: number | null }>(LAST_LATE)
    return row?.at ?? 0
  }

  /** How many rows were committed, by spans of time. */
  async commits(spanMs: number): Promise<ReadonlyArray<{ readonly at: number; readonly count: number }>> {
    return this.query(commitsBy(spanMs))
  }

  private async compare(devices: readonly BenchDevice[], records: readonly DeviceReports[]): Promise<Reconciliation> {
    const rows = await this.query<Row>(ROWS)
    const [dead] = await this.query<{ count: number }>(DEAD_LETTERS)
    const byKey = new Map(rows.map((row) => [keyOf(row.device, row.component, row.at), row.sequence]))
    const seen = new Set<string>()
    let duplicates = 0
    for (const { device, sequence } of rows) {
      const report = `${device} ${sequence}`
      if (seen.has(report)) duplicates += 1
      seen.add(report)
    }
    const components = new Map(devices.map((device) => [device.id, device.components]))
    let published = 0
    let acknowledged = 0
    let missing = 0
    let known = 0
    for (const { deviceId, reports } of records) {
      for (let at = 0; at < reports.length; at += 4) {
        const [sequence = 0, component = 0, instant = 0, done = 0] = reports.slice(at, at + 4)
        const stored = byKey.get(keyOf(deviceId, components.get(deviceId)?.[component] ?? '', instant)) === sequence
        published += 1
        acknowledged += done
        if (stored) known += 1
        else missing += done
      }
    }
    const strangers = rows.length - known - duplicates
    return {
      published,
      acknowledged,
      committed: rows.length,
      missing,
      duplicates,
      strangers,
      deadLetters: dead?.count ?? 0,
    }
  }

  private async query<Answer extends object>(text: string): Promise<Answer[]> {
    const client = new Client({ connectionString: this.databaseUrl })
    client.on('error', () => undefined) // the query says so
    await client.connect()
    try {
      return (await client.query<Answer>(text, [this.from])).rows
    } finally {
      await client.end()
    }
  }
}

interface Row {
  readonly device: string
  readonly component: string
  readonly at: number
  readonly sequence: number
}

const keyOf = (device: string, component: string, at: number): string => `${device} ${component} ${at}`

const ROWS = `
  SELECT c.device_id::text AS device, c.name AS component,
         (extract(epoch FROM t.captured_at) * 1000)::float8 AS at,
         (t.metrics ->> 'temperature')::float8 AS sequence
    FROM telemetry t JOIN component_instances c ON c.id = t.component_id
   WHERE t.captured_at >= $1`

const DEAD_LETTERS = 'SELECT count(*)::int AS count FROM dead_letters WHERE received_at >= $1'

const commitsBy = (spanMs: number): string => `
  SELECT floor(extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 / ${spanMs})::float8 * ${spanMs} AS at,
         count(*)::int AS count
    FROM telemetry WHERE captured_at >= $1
   GROUP BY 1`

const LAST_LATE = `
  SELECT (extract(epoch FROM max(committed)) * 1000)::float8 AS at
    FROM (SELECT pg_xact_commit_timestamp(xmin) AS committed, captured_at FROM telemetry WHERE captured_at >= $1) AS r
   WHERE committed - captured_at > interval '1 second'`
