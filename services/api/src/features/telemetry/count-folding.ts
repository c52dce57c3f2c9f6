import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'

const BATCHES_AT_ONCE = 500

export interface CountFoldingOptions {
  readonly logger: Pick<Logger, 'warn'>
  /** How often the counts of batches are added up. */
  readonly everyMs?: number
}

/**
 * Adds the counts of batches to the counts per device and hour. A batch is taken and added in one statement, so each
 * counts once at every moment; replicas that fold at once take different batches.
 */
export class CountFolding {
  private readonly timer: NodeJS.Timeout
  private folding: Promise<void> = Promise.resolve()

  constructor(
    private readonly pool: Pool,
    private readonly options: CountFoldingOptions,
  ) {
    this.timer = setInterval(() => void this.fold(), options.everyMs ?? 5_000).unref()
  }

  /** Adds up all that is there. */
  fold(): Promise<void> {
    this.folding = this.folding.then(() => this.foldAll())
    return this.folding
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.folding
  }

  private async foldAll(): Promise<void> {
    try {
      for (;;) {
        const { rows } = await this.pool.query<{ batches: number }>(FOLD, [BATCHES_AT_ONCE])
        if ((rows[0]?.batches ?? 0) < BATCHES_AT_ONCE) return
      }
    } catch (error) {
      this.options.logger.warn('counts were not added up, trying again', { error: String(error) })
    }
  }
}

// Sorted by the key: two folds with the same devices cannot deadlock.
const FOLD = `
  WITH taken AS (
    DELETE FROM telemetry_count_batches
     WHERE id IN (SELECT id FROM telemetry_count_batches ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING counts
  ), added AS (
    INSERT INTO telemetry_counts AS t (device_id, hour, received, committed, duplicate, dead_lettered)
    SELECT c ->> 0, to_timestamp((c ->> 1)::float8 / 1000), sum((c ->> 2)::int8), sum((c ->> 3)::int8),
           sum((c ->> 4)::int8), sum((c ->> 5)::int8)
      FROM taken, jsonb_array_elements(counts) AS c
     GROUP BY 1, 2
     ORDER BY 1, 2
    ON CONFLICT (device_id, hour) DO UPDATE SET
      received = t.received + excluded.received,
      committed = t.committed + excluded.committed,
      duplicate = t.duplicate + excluded.duplicate,
      dead_lettered = t.dead_lettered + excluded.dead_lettered
  )
  SELECT count(*)::int AS batches FROM taken`
