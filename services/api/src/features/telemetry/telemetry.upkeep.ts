import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'
import { Recurring } from '../../recurring'
import type { Partitions } from './partitions'

const DAY_MS = 86_400_000
const DAYS_AHEAD = 7
/** Counts outlive their telemetry: they are what says that nothing was lost. */
const COUNTS_KEPT_DAYS = 400
const ROWS_AT_ONCE = 20_000

/**
 * The daily work on the table of telemetry: partitions are made ahead, and what is past its retention goes.
 * A partition holds all organizations, so it is dropped by the longest retention among them; for an organization that
 * keeps less, rows are deleted, some at a time.
 */
export class TelemetryUpkeep {
  private readonly recurring = new Recurring(
    () => this.run(),
    (error) => {
      this.logger.warn('the upkeep of telemetry failed, it is tried again within the hour', { error: String(error) })
    },
  )

  constructor(
    private readonly pool: Pool,
    private readonly partitions: Partitions,
    private readonly logger: Pick<Logger, 'info' | 'warn'>,
    private readonly now: () => number = Date.now,
  ) {}

  /** Runs now, and then every hour: partitions ahead are cheap to ask for, and a replica may have been away. */
  async start(everyMs = 3_600_000): Promise<void> {
    this.recurring.start(everyMs)
    await this.recurring.run()
  }

  stop(): Promise<void> {
    return this.recurring.stop()
  }

  async run(): Promise<void> {
    const now = this.now()
    await this.partitions.ensure(Array.from({ length: DAYS_AHEAD + 1 }, (_, day) => now + day * DAY_MS))
    const { rows } = await this.pool.query<{ days: number | null }>(
      'SELECT max(telemetry_retention_days) AS days FROM organizations',
    )
    const longest = rows[0]?.days
    if (!longest) return
    const dropped = await this.partitions.dropBefore(now - longest * DAY_MS)
    if (dropped.length > 0) this.logger.info('dropped partitions past every retention', { partitions: dropped })
    const deleted = await this.deleteByRetention(longest)
    await this.deleteRollups()
    if (deleted > 0) this.logger.info('deleted telemetry past the retention of its organization', { rows: deleted })
    const oldest = new Date(now - COUNTS_KEPT_DAYS * DAY_MS)
    await this.pool.query('DELETE FROM telemetry_counts WHERE hour < $1', [oldest])
    await this.pool.query('DELETE FROM telemetry_sequences WHERE day < $1', [oldest])
  }

  /** Minutes go with the telemetry they are of, hours with the counts. */
  private async deleteRollups(): Promise<void> {
    const now = this.now()
    await this.pool.query(DELETE_MINUTES, [new Date(now)])
    await this.pool.query(DELETE_HOURS, [new Date(now - COUNTS_KEPT_DAYS * DAY_MS)])
    for (const sql of DELETE_ORPHANS) await this.pool.query(sql)
  }

  private async deleteByRetention(longest: number): Promise<number> {
    const { rows } = await this.pool.query<{ id: string; days: number }>(
      'SELECT id, telemetry_retention_days AS days FROM organizations WHERE telemetry_retention_days < $1',
      [longest],
    )
    let deleted = 0
    for (const { id, days } of rows) {
      for (;;) {
        const { rowCount } = await this.pool.query(DELETE_OLD, [id, new Date(this.now() - days * DAY_MS), ROWS_AT_ONCE])
        deleted += rowCount ?? 0
        if ((rowCount ?? 0) < ROWS_AT_ONCE) break
      }
    }
    return deleted
  }
}

const DELETE_MINUTES = `
  DELETE FROM telemetry_rollups_1m r
   USING component_instances c
    JOIN devices d ON d.id = c.device_id
    JOIN organizations o ON o.id = d.organization_id
   WHERE r.component_id = c.id AND r.bucket < $1::timestamptz - make_interval(days => o.telemetry_retention_days, hours => 2)`

const DELETE_HOURS = `
  DELETE FROM telemetry_rollups_1h r
   USING component_instances c
   WHERE r.component_id = c.id AND r.bucket < $1`

/** Of components that are gone. */
const DELETE_ORPHANS = ['telemetry_rollups_1m', 'telemetry_rollups_1h'].map(
  (table) => `
  DELETE FROM ${table} WHERE component_id IN (
    SELECT component_id FROM (
      WITH RECURSIVE ids AS (
        (SELECT component_id FROM ${table} ORDER BY component_id LIMIT 1)
        UNION ALL
        SELECT (SELECT component_id FROM ${table} WHERE component_id > ids.component_id ORDER BY component_id LIMIT 1)
          FROM ids WHERE ids.component_id IS NOT NULL)
      SELECT component_id FROM ids) used
     WHERE component_id IS NOT NULL AND component_id NOT IN (SELECT id FROM component_instances))`,
)

const DELETE_OLD = `
  DELETE FROM telemetry t
   USING (SELECT o.component_id, o.captured_at
            FROM component_instances c
            JOIN devices d ON d.id = c.device_id AND d.organization_id = $1
            JOIN telemetry o ON o.component_id = c.id AND o.captured_at < $2
           LIMIT $3) old
   WHERE t.component_id = old.component_id AND t.captured_at = old.captured_at AND t.captured_at < $2`
