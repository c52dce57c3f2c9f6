import type { Pool, PoolClient } from 'pg'

export interface StoredDeadLetter {
  /** Grows with the time of storing; more than a number holds exactly, so it stays text. */
  readonly id: string
  readonly deviceId: string
  readonly topic: string
  readonly payload: Buffer
  readonly reason: string
  readonly detail: string
  readonly receivedAt: Date
  /** The report in protobuf; null: none could be read. */
  readonly report: Buffer | null
  readonly replayedAt: Date | null
  readonly replayResult: 'committed' | 'duplicate' | null
}

export interface DeadLetterFilter {
  readonly deviceId?: string | undefined
  readonly organizationId?: string | undefined
  /** Of organizations that this person is a member of. */
  readonly memberId?: string | undefined
  readonly reason?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
  readonly state?: 'open' | 'replayed' | 'all' | undefined
}

/** Reads and marks messages that did not become telemetry; ingestion writes them, in its own transaction. */
export class DeadLetterStore {
  constructor(private readonly pool: Pool) {}

  /** The newest first. @param before id of the last one of the page before */
  async list(filter: DeadLetterFilter, limit: number, before?: string): Promise<StoredDeadLetter[]> {
    const { where, values } = conditions(filter, before === undefined ? undefined : ['id <', before])
    const { rows } = await this.pool.query<StoredDeadLetter>(
      `${SELECT} WHERE ${where} ORDER BY id DESC LIMIT ${Number(limit)}`,
      values,
    )
    return rows
  }

  /** Those that are not replayed, the oldest first. @param after id of the last one that was looked at */
  async open(filter: DeadLetterFilter, limit: number, after?: string): Promise<StoredDeadLetter[]> {
    const { where, values } = conditions(
      { ...filter, state: 'open' },
      after === undefined ? undefined : ['id >', after],
    )
    const { rows } = await this.pool.query<StoredDeadLetter>(
      `${SELECT} WHERE ${where} ORDER BY id LIMIT ${Number(limit)}`,
      values,
    )
    return rows
  }

  async find(id: string, deviceId?: string): Promise<StoredDeadLetter | undefined> {
    const { rows } = await this.pool.query<StoredDeadLetter>(
      `${SELECT} WHERE id = $1 AND ($2::text IS NULL OR device_id = $2)`,
      [id, deviceId ?? null],
    )
    return rows[0]
  }

  /** Marks letters as replayed, in the transaction that stores what they hold. @returns the ids not marked before */
  async mark(
    client: PoolClient,
    letters: ReadonlyArray<{ readonly id: string; readonly result: string }>,
    by: string,
  ): Promise<Set<string>> {
    const sorted = [...letters].sort((a, b) => Number(a.id) - Number(b.id))
    const { rows } = await client.query<{ id: string }>(MARK, [
      sorted.map(({ id }) => id),
      sorted.map(({ result }) => result),
      by,
    ])
    return new Set(rows.map(({ id }) => id))
  }
}

/** Only the conditions that are asked for: the planner sees which index serves them. */
function conditions(filter: DeadLetterFilter, place?: readonly [string, string]): { where: string; values: unknown[] } {
  const values: unknown[] = []
  const where = ['true']
  const add = (condition: string, value: unknown) => {
    if (value === undefined) return
    values.push(value)
    where.push(condition.replace('?', `$${values.length}`))
  }
  add('device_id = ?', filter.deviceId)
  add('organization_id = ?::uuid', filter.organizationId)
  add('organization_id IN (SELECT organization_id FROM memberships WHERE user_id = ?::uuid)', filter.memberId)
  add('reason = ?', filter.reason)
  add('received_at >= ?', filter.from)
  add('received_at < ?', filter.to)
  if (place) add(`${place[0]} ?::bigint`, place[1])
  if (filter.state === 'open') where.push('replayed_at IS NULL')
  if (filter.state === 'replayed') where.push('replayed_at IS NOT NULL')
  return { where: where.join(' AND '), values }
}

const SELECT = `
  SELECT id, device_id AS "deviceId", topic, payload, reason, detail, received_at AS "receivedAt", report,
         replayed_at AS "replayedAt", replay_result AS "replayResult"
    FROM dead_letters`

const MARK = `
  UPDATE dead_letters l
     SET replayed_at = now(), replayed_by = $3::uuid, replay_result = r.result
    FROM unnest($1::bigint[], $2::text[]) AS r (id, result)
   WHERE l.id = r.id AND l.replayed_at IS NULL
  RETURNING l.id`
