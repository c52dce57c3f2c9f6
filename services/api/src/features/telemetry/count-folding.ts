import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'
import { onlyOne } from '../../database/only-one'

const BATCHES_AT_ONCE = 500

export interface CountFoldingOptions {
  readonly logger: Pick<Logger, 'warn'>
  /** How often the counts of batches are added up. */
  readonly everyMs?: number
}

/**
 * Works on the records of batches: counts are added to the counts per device and hour, sequence numbers to the ranges per
 * device and day, changed minutes to the queue of the roll-ups. A record is taken and added in one statement, so each counts once at every moment. One replica at a
 * time does it: two that touch rows of the same devices in two tables could wait for each other.
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
        const batches = await onlyOne(this.pool, 'count folding', async (client) => {
          const { rows } = await client.query<{ batches: number }>(FOLD, [BATCHES_AT_ONCE])
          return rows[0]?.batches
        })
        if ((batches ?? 0) < BATCHES_AT_ONCE) return
      }
    } catch (error) {
      this.options.logger.warn('counts were not added up, trying again', { error: String(error) })
    }
  }
}

const FOLD = `
  WITH taken AS (
    DELETE FROM telemetry_count_batches
     WHERE id IN (SELECT id FROM telemetry_count_batches ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING counts, sequences, dirty
  ), counted AS (
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
  ), ranged AS (
    INSERT INTO telemetry_sequences AS t (device_id, day, ranges)
    SELECT s ->> 0, (to_timestamp((s ->> 1)::float8 / 1000) AT TIME ZONE 'UTC')::date,
           bounded_sequences(range_agg(int8range((s -> 2 ->> (2 * i))::int8, (s -> 2 ->> (2 * i + 1))::int8, '[]')))
      FROM taken, jsonb_array_elements(sequences) AS s, generate_series(0, jsonb_array_length(s -> 2) / 2 - 1) AS i
     GROUP BY 1, 2
     ORDER BY 1, 2
    ON CONFLICT (device_id, day) DO UPDATE SET ranges = bounded_sequences(t.ranges + excluded.ranges)
      WHERE NOT t.ranges @> excluded.ranges
  ), queued AS (
    INSERT INTO telemetry_rollup_queue (component_id, minute)
    SELECT DISTINCT (d ->> 0)::int, minute::int
      FROM taken, jsonb_array_elements(dirty) AS d, jsonb_array_elements_text(d -> 1) AS minute
     ORDER BY 1, 2
    ON CONFLICT DO NOTHING
  )
  SELECT count(*)::int AS batches FROM taken`
