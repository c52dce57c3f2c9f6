import type { Pool } from 'pg'
import type { ReconciledHour, SequenceGap } from './reconciliation.schema'

/** Whose devices: each that is given narrows it down. */
export interface DeviceScope {
  readonly deviceId?: string | undefined
  readonly organizationId?: string | undefined
  /** Organizations that this person is a member of. */
  readonly memberId?: string | undefined
}

export interface HourWindow {
  /** Inclusive. */
  readonly from: Date
  /** Exclusive. */
  readonly to: Date
}

export type Counts = Omit<ReconciledHour, 'deviceId' | 'hour' | 'closes'>

export interface HourPlace {
  readonly hour: Date
  readonly deviceId: string
}

/** Reads the counts and sequence ranges, those of batches that are not folded yet included. */
export class ReconciliationStore {
  constructor(private readonly pool: Pool) {}

  /** The newest hour first. @param after where the page before ended */
  async hours(scope: DeviceScope, window: HourWindow, limit: number, after?: HourPlace) {
    const { rows } = await this.pool.query<Counts & HourPlace>(HOURS, [
      ...scopeValues(scope),
      window.from,
      window.to,
      after?.hour ?? null,
      after?.deviceId ?? null,
      limit,
    ])
    return rows
  }

  async totals(scope: DeviceScope, window: HourWindow): Promise<Counts> {
    const { rows } = await this.pool.query<Counts>(TOTALS, [...scopeValues(scope), window.from, window.to])
    return rows[0] ?? { received: 0, committed: 0, duplicate: 0, deadLettered: 0 }
  }

  /** The highest numbers first. */
  async gaps(scope: DeviceScope, window: HourWindow, limit: number): Promise<SequenceGap[]> {
    const { rows } = await this.pool.query<SequenceGap>(GAPS, [...scopeValues(scope), window.from, window.to, limit])
    return rows
  }
}

const scopeValues = ({ deviceId, organizationId, memberId }: DeviceScope) => [
  deviceId ?? null,
  organizationId ?? null,
  memberId ?? null,
]

const SCOPE = `
  SELECT d.id::text
    FROM devices d
   WHERE ($1::uuid IS NULL OR d.id = $1) AND ($2::uuid IS NULL OR d.organization_id = $2)
     AND ($3::uuid IS NULL OR d.organization_id IN (SELECT organization_id FROM memberships WHERE user_id = $3))`

// Counts fit into a double: 2^53 messages.
const HOURS = `
  SELECT device_id AS "deviceId", hour, received::float8 AS received, committed::float8 AS committed,
         duplicate::float8 AS duplicate, dead_lettered::float8 AS "deadLettered"
    FROM telemetry_counts_now
   WHERE device_id IN (${SCOPE}) AND hour >= $4 AND hour < $5
     AND ($6::timestamptz IS NULL OR hour < $6 OR (hour = $6 AND device_id > $7))
   ORDER BY hour DESC, device_id
   LIMIT $8`

const TOTALS = `
  SELECT coalesce(sum(received), 0)::float8 AS received, coalesce(sum(committed), 0)::float8 AS committed,
         coalesce(sum(duplicate), 0)::float8 AS duplicate, coalesce(sum(dead_lettered), 0)::float8 AS "deadLettered"
    FROM telemetry_counts_now
   WHERE device_id IN (${SCOPE}) AND hour >= $4 AND hour < $5`

/** A larger step is a counter that began anew, see the device guide. */
const LARGEST_GAP = 100_000

// What is missing between the lowest and the highest number of the window's days, and did not come later either.
const GAPS = `
  WITH scope AS MATERIALIZED (${SCOPE}), bounds AS (
    SELECT ($4::timestamptz AT TIME ZONE 'UTC')::date AS first, ($5::timestamptz AT TIME ZONE 'UTC')::date AS last
  ), seen AS (
    SELECT t.device_id, t.day, r
      FROM telemetry_sequences t, unnest(t.ranges) AS r
     WHERE t.device_id IN (SELECT id FROM scope) AND t.day >= (SELECT first FROM bounds)
     UNION ALL
    SELECT s ->> 0, (to_timestamp((s ->> 1)::float8 / 1000) AT TIME ZONE 'UTC')::date,
           int8range((s -> 2 ->> (2 * i))::int8, (s -> 2 ->> (2 * i + 1))::int8, '[]')
      FROM telemetry_count_batches, jsonb_array_elements(sequences) AS s,
           generate_series(0, jsonb_array_length(s -> 2) / 2 - 1) AS i
     WHERE s ->> 0 IN (SELECT id FROM scope)
  ), ranges AS (
    SELECT device_id, range_agg(r) FILTER (WHERE day <= (SELECT last FROM bounds)) AS inside, range_agg(r) AS all_of_them
      FROM seen
     GROUP BY device_id
  )
  SELECT device_id AS "deviceId", lower(gap)::float8 AS first, (upper(gap) - 1)::float8 AS last,
         (upper(gap) - lower(gap))::float8 AS missing
    FROM ranges, unnest(int8multirange(range_merge(inside)) - all_of_them) AS gap
   WHERE inside IS NOT NULL AND upper(gap) - lower(gap) <= ${LARGEST_GAP}
   ORDER BY lower(gap) DESC, device_id
   LIMIT $6`
