import { Client } from 'pg'

/** What a run left in the database. */
export interface Committed {
  readonly rows: number
  /** When the last of them was committed, epoch milliseconds. */
  readonly lastAt: number
  /** From the instant that the device wrote into the report to the commit. */
  readonly p50Ms: number
  readonly p99Ms: number
}

/** PostgreSQL must note when each transaction was committed. */
export const COMMIT_TIMES = { track_commit_timestamp: 'on' } as const

/** The table of telemetry as a benchmark looks at it: from outside, by a connection of its own. */
export class CommittedRows {
  private constructor(readonly client: Client) {}

  static async open(databaseUrl: string): Promise<CommittedRows> {
    const client = new Client({ connectionString: databaseUrl })
    client.on('error', () => undefined) // the next query says so
    await client.connect()
    return new CommittedRows(client)
  }

  async count(): Promise<number> {
    const { rows } = await this.client.query<{ count: string }>('SELECT count(*) AS count FROM telemetry')
    return Number(rows[0]?.count)
  }

  /** Dead letters by their reason. */
  async deadLetters(): Promise<Record<string, number>> {
    const { rows } = await this.client.query<{ reason: string; count: number }>(
      'SELECT reason, count(*)::int AS count FROM dead_letters GROUP BY reason',
    )
    return Object.fromEntries(rows.map(({ reason, count }) => [reason, count]))
  }

  /** Waits until there are so many rows, or none came for 10 s. @returns how many there are */
  async settle(expected: number): Promise<number> {
    let known = -1
    let changedAt = Date.now()
    for (;;) {
      const rows = await this.count()
      if (rows >= expected) return rows
      if (rows !== known) changedAt = Date.now()
      else if (Date.now() - changedAt > 10_000) return rows
      known = rows
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }

  async describe(): Promise<Committed> {
    const { rows } = await this.client.query<Committed>(DESCRIBE)
    const [found] = rows
    if (!found) throw new Error('PostgreSQL did not answer')
    return found
  }

  async clear(): Promise<void> {
    await this.client.query('TRUNCATE telemetry, dead_letters')
  }

  close(): Promise<void> {
    return this.client.end()
  }
}

const DESCRIBE = `
  SELECT count(*)::int AS "rows",
         coalesce(max(committed), 0)::float8 AS "lastAt",
         coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY committed - captured), 0)::float8 AS "p50Ms",
         coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY committed - captured), 0)::float8 AS "p99Ms"
    FROM (SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 AS committed,
                 extract(epoch FROM captured_at) * 1000 AS captured
            FROM telemetry) AS r`
