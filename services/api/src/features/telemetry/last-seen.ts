import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'

export interface LastSeenOptions {
  readonly logger: Pick<Logger, 'warn'>
  /** How often what was seen is written. */
  readonly flushMs?: number
}

/**
 * When devices were last heard of: folded in memory and written every few seconds, in a statement of its own that passes
 * over rows somebody holds. A device's row is never what two batches wait for. What a crash loses, the next report mends.
 */
export class LastSeen {
  private seen = new Map<string, number>()
  private readonly timer: NodeJS.Timeout
  private flushing: Promise<void> = Promise.resolve()

  constructor(
    private readonly pool: Pool,
    private readonly options: LastSeenOptions,
  ) {
    this.timer = setInterval(() => void this.flush(), options.flushMs ?? 5_000).unref()
  }

  /** @param deviceId of a device that exists @param at epoch milliseconds */
  note(deviceId: string, at: number): void {
    if (at > (this.seen.get(deviceId) ?? 0)) this.seen.set(deviceId, at)
  }

  /** Writes what was noted. */
  flush(): Promise<void> {
    this.flushing = this.flushing.then(() => this.write())
    return this.flushing
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.flush()
  }

  private async write(): Promise<void> {
    const { seen } = this
    if (seen.size === 0) return
    this.seen = new Map()
    try {
      await this.pool.query(UPDATE, [[...seen.keys()], [...seen.values()]])
    } catch (error) {
      for (const [deviceId, at] of seen) this.note(deviceId, at)
      this.options.logger.warn('last-seen times of devices were not written, trying again', { error: String(error) })
    }
  }
}

const UPDATE = `
  UPDATE devices d
     SET last_seen_at = r.at
    FROM (SELECT id, to_timestamp(at / 1000) AS at FROM unnest($1::uuid[], $2::float8[]) AS s (id, at)) r
   WHERE d.id = r.id
     AND d.id IN (SELECT id FROM devices WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
     AND (d.last_seen_at IS NULL OR d.last_seen_at < r.at)`
