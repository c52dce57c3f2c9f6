import type { Logger } from '@ares/chassis'
import type { Pool } from 'pg'
import { onlyOne } from '../../database/only-one'
import { Recurring } from '../../recurring'

const MINUTES_AT_ONCE = 2_000
/** A minute is rolled up when it has ended, and what is on its way had the time to come: each row is read once. */
const SETTLE_MS = 10_000

/**
 * Keeps the roll-ups right.
 *
 *   batch (rows, and the minutes they are of, in one transaction) ──CountFolding──▶ queue ──here──▶ minutes ──▶ hours
 *
 * A minute that is in the queue is worked out anew from its rows, and its hour from its minutes: late data, merged rows
 * and replayed letters need nothing of their own, and nothing can count twice. What is taken from the queue and what is
 * written come in one transaction.
 */
export class Rollups {
  private readonly recurring = new Recurring(
    () => this.run(),
    (error) => this.logger.warn('roll-ups were not worked out, trying again', { error: String(error) }),
  )

  constructor(
    private readonly pool: Pool,
    private readonly logger: Pick<Logger, 'warn'>,
    private readonly now: () => number = Date.now,
  ) {}

  start(everyMs = 5_000): void {
    this.recurring.start(everyMs)
  }

  stop(): Promise<void> {
    return this.recurring.stop()
  }

  /** Works off what is due. @returns minutes that were rolled up */
  async run(): Promise<number> {
    const last = Math.floor((this.now() - SETTLE_MS) / 60_000) - 1
    let total = 0
    for (;;) {
      const done = await onlyOne(this.pool, 'roll-ups', async (client) => {
        // Two statements, so that the second one sees all that was committed when the queue was read: a row that came
        // between would find its minute in the queue, and it would not be put there again.
        const { rows } = await client.query<{ component_id: number; minute: number }>(TAKE, [last, MINUTES_AT_ONCE])
        if (rows.length === 0) return 0
        const minutes = [rows.map((row) => row.component_id), rows.map((row) => row.minute)]
        await client.query(BY_INDEX)
        await client.query(ROLL_UP_MINUTES, minutes)
        await client.query(ROLL_UP_HOURS, minutes)
        return rows.length
      })
      total += done ?? 0
      if ((done ?? 0) < MINUTES_AT_ONCE) return total
    }
  }
}

const TAKE = `
  DELETE FROM telemetry_rollup_queue q
   USING (SELECT component_id, minute FROM telemetry_rollup_queue WHERE minute <= $1 ORDER BY minute LIMIT $2) due
   WHERE q.component_id = due.component_id AND q.minute = due.minute
  RETURNING q.component_id, q.minute`

// A minute of a component is a piece of the key. The planner, with old statistics, may choose to read the whole day.
const BY_INDEX = `
  SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
  SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off`

/** A boolean is 0 or 1. */
const number = (value: string): string =>
  `CASE jsonb_typeof(${value}) WHEN 'number' THEN (${value})::float8 ELSE (${value})::boolean::int END`

// The last value is read again by the instant that it has: to carry it through the aggregate costs more (store.bench.ts).
const ROLL_UP_MINUTES = `
  INSERT INTO telemetry_rollups_1m (component_id, bucket, metric, count, minimum, maximum, sum, last)
  SELECT r.component_id, to_timestamp(r.minute * 60.0), r.metric, r.count, r.minimum, r.maximum, r.sum,
         ${number('newest.metrics -> r.metric')}
    FROM (SELECT d.component_id, d.minute, v.metric, count(*) AS count, min(v.value) AS minimum,
                 max(v.value) AS maximum, sum(v.value) AS sum, max(t.captured_at) AS last_at
            FROM unnest($1::int[], $2::int[]) AS d (component_id, minute)
           CROSS JOIN LATERAL (
             SELECT captured_at, metrics
               FROM telemetry
              WHERE component_id = d.component_id
                AND captured_at >= to_timestamp(d.minute * 60.0) AND captured_at < to_timestamp(d.minute * 60.0 + 60)) t
           CROSS JOIN LATERAL (
             SELECT key AS metric, ${number('value')} AS value
               FROM jsonb_each(t.metrics)
              WHERE jsonb_typeof(value) IN ('number', 'boolean')) v
           GROUP BY d.component_id, d.minute, v.metric) r
    JOIN telemetry newest ON newest.component_id = r.component_id AND newest.captured_at = r.last_at
  ON CONFLICT (component_id, bucket, metric) DO UPDATE SET
    count = excluded.count, minimum = excluded.minimum, maximum = excluded.maximum, sum = excluded.sum,
    last = excluded.last`

// An array compares by its first element first: the greatest [instant, value] has the last value.
const ROLL_UP_HOURS = `
  INSERT INTO telemetry_rollups_1h (component_id, bucket, metric, count, minimum, maximum, sum, last)
  SELECT d.component_id, d.hour, m.metric, sum(m.count), min(m.minimum), max(m.maximum), sum(m.sum),
         (max(ARRAY[extract(epoch FROM m.bucket)::float8, m.last]))[2]
    FROM (SELECT DISTINCT component_id, to_timestamp((minute / 60) * 3600.0) AS hour
            FROM unnest($1::int[], $2::int[]) AS q (component_id, minute)) d
    JOIN telemetry_rollups_1m m
      ON m.component_id = d.component_id AND m.bucket >= d.hour AND m.bucket < d.hour + interval '1 hour'
   GROUP BY d.component_id, d.hour, m.metric
  ON CONFLICT (component_id, bucket, metric) DO UPDATE SET
    count = excluded.count, minimum = excluded.minimum, maximum = excluded.maximum, sum = excluded.sum,
    last = excluded.last`
