import type { Pool } from 'pg'

const DAY_MS = 86_400_000

/** The daily partitions (UTC) of the table `telemetry`: made before they are written to. */
export class Partitions {
  /** Days since the epoch that are known to have one. */
  private readonly known = new Set<number>()

  constructor(private readonly pool: Pool) {}

  /** Makes the partitions that the times need and that are not there yet. @param times epoch milliseconds */
  async ensure(times: Iterable<number>): Promise<void> {
    const missing = new Set<number>()
    for (const time of times) {
      const day = Math.floor(time / DAY_MS)
      if (!this.known.has(day)) missing.add(day)
    }
    // One at a time, each its own transaction: attaching takes a lock on the table, and it should be short.
    for (const day of [...missing].sort((a, b) => a - b)) {
      await this.pool.query('SELECT ensure_telemetry_partition($1::date)', [dateOf(day)])
      this.known.add(day)
    }
  }

  /** Forgets what is known: another replica may have dropped a partition. */
  forget(): void {
    this.known.clear()
  }

  /** Drops the partitions that end before a time, whole days. @returns their names */
  async dropBefore(time: number): Promise<string[]> {
    const { rows } = await this.pool.query<{ name: string }>(LIST)
    const first = `telemetry_${dateOf(Math.floor(time / DAY_MS)).replaceAll('-', '')}`
    const old = rows.map((row) => row.name).filter((name) => DAILY.test(name) && name < first)
    for (const name of old) await this.pool.query(`DROP TABLE "${name}"`)
    if (old.length > 0) this.forget()
    return old
  }
}

const dateOf = (day: number): string => new Date(day * DAY_MS).toISOString().slice(0, 10)

const DAILY = /^telemetry_\d{8}$/

const LIST = `
  SELECT c.relname AS name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'telemetry'::regclass
   ORDER BY 1`
