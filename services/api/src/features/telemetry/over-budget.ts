import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'
import type { DeviceBudget, OverBudget } from './device-budget'

const KEPT_DAYS = 7

/** Which devices are over their budget: folded in memory, written every few seconds, listed for people. */
export class OverBudgetList {
  private timer: NodeJS.Timeout | undefined
  private flushing: Promise<void> = Promise.resolve()

  constructor(
    private readonly pool: Pool,
    /** undefined: there is no budget. */
    private readonly budget: Pick<DeviceBudget, 'takeRefusals' | 'restoreRefusals'> | undefined,
    private readonly logger: Pick<Logger, 'warn'>,
  ) {}

  start(flushMs = 5_000): void {
    this.timer = setInterval(() => void this.flush(), flushMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.flush()
  }

  /** Writes what was noted. */
  flush(): Promise<void> {
    this.flushing = this.flushing.then(() => this.write())
    return this.flushing
  }

  /** Those of an organization that were over it lately, the worst first. */
  async list(organizationId: string): Promise<ListedDevice[]> {
    const { rows } = await this.pool.query<ListedDevice>(LIST, [organizationId])
    return rows
  }

  private async write(): Promise<void> {
    const refusals = this.budget?.takeRefusals() ?? []
    if (refusals.length === 0) return
    try {
      await this.pool.query(UPSERT, columns(refusals))
    } catch (error) {
      this.budget?.restoreRefusals(refusals)
      this.logger.warn('devices over their budget were not written, trying again', { error: String(error) })
      return
    }
    const [worst] = [...refusals].sort((a, b) => b.refused - a.refused)
    this.logger.warn('devices are over their budget, what they say becomes dead letters', {
      devices: refusals.length,
      worst: worst?.deviceId,
      refused: worst?.refused,
    })
  }
}

export interface ListedDevice {
  readonly deviceId: string
  readonly name: string
  readonly since: Date
  readonly lastAt: Date
  readonly refused: number
}

const columns = (refusals: readonly OverBudget[]) => [
  refusals.map(({ deviceId }) => deviceId),
  refusals.map(({ since }) => since),
  refusals.map(({ lastAt }) => lastAt),
  refusals.map(({ refused }) => refused),
]

// After a quiet hour it is another story, and counts from the beginning.
const UPSERT = `
  INSERT INTO over_budget_devices AS o (device_id, since, last_at, refused)
  SELECT device_id, to_timestamp(since / 1000), to_timestamp(last_at / 1000), refused
    FROM unnest($1::uuid[], $2::float8[], $3::float8[], $4::int8[]) AS r (device_id, since, last_at, refused)
   ORDER BY device_id
  ON CONFLICT (device_id) DO UPDATE SET
    since = CASE WHEN o.last_at < excluded.since - interval '1 hour' THEN excluded.since ELSE o.since END,
    refused = CASE WHEN o.last_at < excluded.since - interval '1 hour' THEN 0 ELSE o.refused END + excluded.refused,
    last_at = greatest(o.last_at, excluded.last_at)`

const LIST = `
  SELECT d.id AS "deviceId", d.name, o.since, o.last_at AS "lastAt", o.refused::float8 AS refused
    FROM over_budget_devices o JOIN devices d ON d.id = o.device_id
   WHERE d.organization_id = $1 AND o.last_at > now() - interval '${KEPT_DAYS} days'
   ORDER BY o.refused DESC
   LIMIT 200`
