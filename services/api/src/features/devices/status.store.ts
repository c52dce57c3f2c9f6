import type { Pool } from 'pg'

export interface StoredStatus {
  readonly deviceId: string
  readonly online: boolean
  readonly receivedAt: Date
}

/** Keeps what devices last said about being online. */
export class StatusStore {
  constructor(private readonly pool: Pool) {}

  /**
   * Stores statuses, at most one a device. An older one changes nothing, and neither does an unknown device.
   * @returns how many devices have a status that was not there before
   */
  async record(statuses: readonly StoredStatus[]): Promise<number> {
    const { rowCount } = await this.pool.query(RECORD, [
      statuses.map(({ deviceId }) => deviceId),
      statuses.map(({ online }) => online),
      statuses.map(({ receivedAt }) => receivedAt),
    ])
    return rowCount ?? 0
  }
}

// The inner select locks in the order of the id: two calls with the same devices cannot deadlock. A device that says it
// is offline is its will speaking: that is not a sign of life.
const RECORD = `
  WITH given AS (
    SELECT * FROM unnest($1::uuid[], $2::boolean[], $3::timestamptz[]) AS s (id, online, received_at)
  ), locked AS (
    SELECT d.id FROM devices d WHERE d.id IN (SELECT id FROM given) ORDER BY d.id FOR NO KEY UPDATE
  )
  UPDATE devices d
     SET online = given.online,
         status_at = given.received_at,
         last_seen_at = CASE WHEN given.online THEN greatest(d.last_seen_at, given.received_at) ELSE d.last_seen_at END
    FROM given JOIN locked ON locked.id = given.id
   WHERE d.id = given.id AND (d.status_at IS NULL OR d.status_at < given.received_at)`
