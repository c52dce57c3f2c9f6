import type { Pool } from 'pg'

export interface StoredDeadLetter {
  /** Grows with the time of storing; more than a number holds exactly, so it stays text. */
  readonly id: string
  readonly deviceId: string
  readonly topic: string
  readonly payload: Buffer
  readonly reason: string
  readonly detail: string
  readonly receivedAt: Date
}

export interface DeadLetterFilter {
  readonly reason?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

/** Reads messages that did not become telemetry; ingestion writes them, in its own transaction. */
export class DeadLetterStore {
  constructor(private readonly pool: Pool) {}

  /** The newest first. @param before id of the last one of the page before */
  async list(deviceId: string, filter: DeadLetterFilter, limit: number, before?: string): Promise<StoredDeadLetter[]> {
    const { rows } = await this.pool.query<StoredDeadLetter>(
      `${SELECT}
        WHERE device_id = $1 AND ($2::bigint IS NULL OR id < $2) AND ($3::text IS NULL OR reason = $3)
          AND ($4::timestamptz IS NULL OR received_at >= $4) AND ($5::timestamptz IS NULL OR received_at < $5)
        ORDER BY id DESC LIMIT $6`,
      [deviceId, before ?? null, filter.reason ?? null, filter.from ?? null, filter.to ?? null, limit],
    )
    return rows
  }

  async find(deviceId: string, id: string): Promise<StoredDeadLetter | undefined> {
    const { rows } = await this.pool.query<StoredDeadLetter>(`${SELECT} WHERE device_id = $1 AND id = $2`, [
      deviceId,
      id,
    ])
    return rows[0]
  }
}

const SELECT = `SELECT id, device_id AS "deviceId", topic, payload, reason, detail, received_at AS "receivedAt" FROM dead_letters`
