import { DomainError } from '@ares/chassis'
import type { Pool } from 'pg'
import { z } from 'zod'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { MAX_HOURS_DAYS, MAX_MINUTES_DAYS, type Rollup, type RollupQuery } from './rollups.schema'

const DAY_MS = 86_400_000

/** Reads roll-ups, the oldest bucket first. */
export class RollupQueries {
  constructor(
    private readonly pool: Pool,
    private readonly now: () => number = Date.now,
  ) {}

  /** @throws DomainError invalid_window, invalid_cursor */
  async read(deviceId: string, query: RollupQuery): Promise<Page<Rollup>> {
    const place = decodeCursor(query.cursor, CURSOR)
    const window = place ? { from: new Date(place.from), to: new Date(place.to) } : this.windowOf(query)
    const { rows } = await this.pool.query<Rollup & { component_id: number }>(READ[query.resolution], [
      deviceId,
      query.component ?? null,
      query.metric ?? null,
      window.from,
      window.to,
      place ? new Date(place.bucket) : null,
      place?.id ?? null,
      place?.metric ?? null,
      query.limit + 1,
    ])
    return pageFrom(rows, query.limit, ({ bucket, component_id: id, metric }) => ({
      from: window.from.getTime(),
      to: window.to.getTime(),
      bucket: bucket.getTime(),
      id,
      metric,
    }))
  }

  private windowOf({ resolution, from, to }: RollupQuery): { from: Date; to: Date } {
    const [usual, most] = resolution === '1m' ? [1, MAX_MINUTES_DAYS] : [31, MAX_HOURS_DAYS]
    const end = to?.getTime() ?? this.now()
    const begin = from?.getTime() ?? end - usual * DAY_MS
    if (begin >= end) throw new DomainError('invalid', 'invalid_window', '`from` must be before `to`.')
    if (end - begin > most * DAY_MS) {
      throw new DomainError('invalid', 'invalid_window', `A window has at most ${most} days: read it in parts.`)
    }
    return { from: new Date(begin), to: new Date(end) }
  }
}

const CURSOR = z.object({
  from: z.number().int(),
  to: z.number().int(),
  bucket: z.number().int(),
  id: z.number().int(),
  metric: z.string(),
})

const read = (table: string) => `
  SELECT c.name AS component, c.id AS component_id, r.metric, r.bucket, r.count, r.minimum, r.maximum, r.sum, r.last
    FROM component_instances c
   CROSS JOIN LATERAL (
     SELECT *
       FROM ${table}
      WHERE component_id = c.id AND bucket >= $4 AND bucket < $5 AND ($3::text IS NULL OR metric = $3)
        AND ($6::timestamptz IS NULL OR bucket > $6 OR (bucket = $6 AND (c.id, metric) > ($7::int, $8::text)))
      ORDER BY bucket, metric
      LIMIT $9) r
   WHERE c.device_id = $1 AND ($2::text IS NULL OR c.name = $2)
   ORDER BY r.bucket, c.id, r.metric
   LIMIT $9`

const READ = { '1m': read('telemetry_rollups_1m'), '1h': read('telemetry_rollups_1h') } as const
