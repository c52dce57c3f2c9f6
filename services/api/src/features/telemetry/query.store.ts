import type { Pool } from 'pg'
import type { Sample } from './telemetry.schema'

export interface Window {
  readonly deviceId: string
  readonly component?: string | undefined
  /** Inclusive. */
  readonly from: Date
  /** Exclusive. */
  readonly to: Date
  readonly order: 'asc' | 'desc'
}

/** A place in the order of samples: instant, then component. */
export interface SamplePlace {
  readonly capturedAt: Date
  readonly componentId: number
}

export type StoredSample = Sample & SamplePlace

/** Reads telemetry by its primary key: per component at most `limit` rows, then the components are merged. */
export class QueryStore {
  constructor(private readonly pool: Pool) {}

  /** @param after where the page before ended */
  async range(window: Window, limit: number, after?: SamplePlace): Promise<StoredSample[]> {
    const { order } = window
    const { rows } = await this.pool.query<SampleRow>({
      name: `telemetry-range-${order}`,
      text: order === 'asc' ? range('ASC', '>') : range('DESC', '<'),
      values: [
        window.deviceId,
        window.component ?? null,
        window.from,
        window.to,
        limit,
        after?.capturedAt ?? null,
        after?.componentId ?? null,
      ],
    })
    return rows.map(toSample)
  }

  /** The newest sample of each component that has one. */
  async latest(deviceId: string): Promise<StoredSample[]> {
    const { rows } = await this.pool.query<SampleRow>({ name: 'telemetry-latest', text: LATEST, values: [deviceId] })
    return rows.map(toSample)
  }
}

interface SampleRow {
  readonly component: string
  readonly component_id: number
  readonly captured_at: Date
  readonly metrics: Sample['metrics']
}

const toSample = (row: SampleRow): StoredSample => ({
  component: row.component,
  componentId: row.component_id,
  capturedAt: row.captured_at,
  metrics: row.metrics,
})

const range = (order: 'ASC' | 'DESC', beyond: '>' | '<'): string => `
  SELECT c.name AS component, c.id AS component_id, t.captured_at, t.metrics
    FROM component_instances c
   CROSS JOIN LATERAL (
     SELECT captured_at, metrics
       FROM telemetry
      WHERE component_id = c.id AND captured_at >= $3 AND captured_at < $4
        AND ($6::timestamptz IS NULL OR captured_at ${beyond}= $6 AND (captured_at <> $6 OR c.id ${beyond} $7::int))
      ORDER BY captured_at ${order}
      LIMIT $5) t
   WHERE c.device_id = $1 AND ($2::text IS NULL OR c.name = $2)
   ORDER BY t.captured_at ${order}, c.id ${order}
   LIMIT $5`

const LATEST = `
  SELECT c.name AS component, c.id AS component_id, t.captured_at, t.metrics
    FROM component_instances c
   CROSS JOIN LATERAL (
     SELECT captured_at, metrics FROM telemetry WHERE component_id = c.id ORDER BY captured_at DESC LIMIT 1) t
   WHERE c.device_id = $1
   ORDER BY c.name`
