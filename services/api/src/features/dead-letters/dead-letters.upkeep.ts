import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'
import { onlyOne } from '../../database/only-one'
import { Recurring } from '../../recurring'

const ROWS_AT_ONCE = 5_000
/** For letters of devices that do not exist: they belong to nobody. */
const NOBODYS = { days: 30, megabytes: 256 }

/**
 * Dead letters end with their retention, and when an organization's take more room than it has for them: first those
 * over budget, then the oldest, so that one device in a loop does not push out what the others have lost.
 */
export class DeadLetterUpkeep {
  private readonly recurring = new Recurring(
    () => this.run(),
    (error) => this.logger.warn('dead letters were not cleaned up, trying again', { error: String(error) }),
  )

  constructor(
    private readonly pool: Pool,
    private readonly logger: Pick<Logger, 'info' | 'warn'>,
  ) {}

  start(everyMs = 60_000): void {
    this.recurring.start(everyMs)
  }

  stop(): Promise<void> {
    return this.recurring.stop()
  }

  async run(): Promise<void> {
    const expired = await this.removeAll(EXPIRED, [ROWS_AT_ONCE])
    const crowded = await this.removeAll(CROWDED, [ROWS_AT_ONCE])
    if (expired > 0) this.logger.info('removed dead letters past their retention', { letters: expired })
    if (crowded > 0) this.logger.warn('removed dead letters that took too much room', { letters: crowded })
  }

  /** Some at a time, one replica at a time. */
  private async removeAll(sql: string, values: readonly unknown[]): Promise<number> {
    let total = 0
    for (;;) {
      const removed = await onlyOne(this.pool, 'dead letters', async (client) => {
        const { rowCount } = await client.query(sql, [...values])
        return rowCount ?? 0
      })
      total += removed ?? 0
      if ((removed ?? 0) < ROWS_AT_ONCE) return total
    }
  }
}

const EXPIRED = `
  DELETE FROM dead_letters WHERE id IN (
    SELECT l.id FROM dead_letters l LEFT JOIN organizations o ON o.id = l.organization_id
     WHERE l.received_at < now() - make_interval(days => coalesce(o.dead_letter_retention_days, ${NOBODYS.days}))
     LIMIT $1)`

// The sizes come from the heads of the values: nothing is unpacked. The order is worked out only for those with too much.
const CROWDED = `
  WITH full_ones AS (
    SELECT l.organization_id, coalesce(min(o.dead_letter_max_megabytes), ${NOBODYS.megabytes})::bigint << 20 AS room
      FROM dead_letters l LEFT JOIN organizations o ON o.id = l.organization_id
     GROUP BY l.organization_id
    HAVING sum(octet_length(l.payload) + coalesce(octet_length(l.report), 0) + 200)
         > coalesce(min(o.dead_letter_max_megabytes), ${NOBODYS.megabytes})::bigint << 20
  ), filled AS (
    SELECT l.id, f.room, sum(octet_length(l.payload) + coalesce(octet_length(l.report), 0) + 200) OVER (
             PARTITION BY l.organization_id ORDER BY l.reason = 'over_budget', l.id DESC) AS taken
      FROM full_ones f JOIN dead_letters l ON l.organization_id IS NOT DISTINCT FROM f.organization_id
  )
  DELETE FROM dead_letters WHERE id IN (SELECT id FROM filled WHERE taken > room LIMIT $1)`
