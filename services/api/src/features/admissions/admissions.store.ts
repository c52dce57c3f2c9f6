import type { Pool } from 'pg'

export interface StoredAdmission {
  /** Grows with the time of storing; more than a number holds exactly, so it stays text. */
  readonly id: string
  /** The first of `count` that were alike. */
  readonly at: Date
  readonly count: number
  readonly action: 'connect' | 'publish' | 'subscribe'
  readonly allowed: boolean
  readonly reason: string
  readonly rule: string | null
  readonly className: string | null
  readonly subjectId: string | null
  readonly clientId: string | null
  /** As Vault writes it. */
  readonly certificateSerial: string | null
  readonly peerAddress: string | null
  readonly zone: string | null
  readonly topic: string | null
  /** The device itself, or the one that a person's topic speaks of; null: none that is known. */
  readonly deviceId: string | null
}

export type NewAdmission = Omit<StoredAdmission, 'id'>

/** A certificate that was connected with for the first time. */
export interface FirstConnection {
  readonly serial: string
  readonly deviceId: string
}

export interface AdmissionFilter {
  readonly allowed?: boolean | undefined
  readonly reason?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

/** Keeps what the authorizer decided. */
export class AdmissionStore {
  constructor(private readonly pool: Pool) {}

  /**
   * Stores a batch and notes when its certificates were seen, in one statement. The same batch again changes nothing.
   * @returns how many rows are new, and the certificates that were never seen before
   */
  async record(
    batchId: string,
    rows: readonly NewAdmission[],
  ): Promise<{ readonly stored: number; readonly first: FirstConnection[] }> {
    const column = <K extends keyof NewAdmission>(name: K) => rows.map((row) => row[name])
    const { rows: result } = await this.pool.query<{ stored: number; first: FirstConnection[] }>(RECORD, [
      batchId,
      ...COLUMNS.map(column),
    ])
    return result[0] ?? { stored: 0, first: [] }
  }

  /** The newest first. @param before id of the last one of the page before */
  async list(
    of: { readonly deviceId: string } | { readonly organizationId: string },
    filter: AdmissionFilter,
    limit: number,
    before?: string,
  ): Promise<StoredAdmission[]> {
    const [owner, id] = 'deviceId' in of ? ['device_id', of.deviceId] : ['organization_id', of.organizationId]
    const { rows } = await this.pool.query<StoredAdmission>(
      `SELECT id, at, count, action, allowed, reason, rule, class_name AS "className", subject_id AS "subjectId",
              client_id AS "clientId", certificate_serial AS "certificateSerial", peer_address AS "peerAddress",
              zone, topic, device_id AS "deviceId"
         FROM admissions
        WHERE ${owner} = $1 AND ($2::bigint IS NULL OR id < $2) AND ($3::boolean IS NULL OR allowed = $3)
          AND ($4::text IS NULL OR reason = $4) AND ($5::timestamptz IS NULL OR at >= $5)
          AND ($6::timestamptz IS NULL OR at < $6)
        ORDER BY id DESC LIMIT $7`,
      [
        id,
        before ?? null,
        filter.allowed ?? null,
        filter.reason ?? null,
        filter.from ?? null,
        filter.to ?? null,
        limit,
      ],
    )
    return rows
  }

  /** Forgets what is older, some rows at a time. @returns how many */
  async prune(olderThan: Date, atOnce = 20_000): Promise<number> {
    let pruned = 0
    for (;;) {
      const { rowCount } = await this.pool.query(PRUNE, [olderThan, atOnce])
      pruned += rowCount ?? 0
      if ((rowCount ?? 0) < atOnce) return pruned
    }
  }
}

/** In the order of the parameters of RECORD, after the batch's id. */
const COLUMNS = [
  'at',
  'count',
  'action',
  'allowed',
  'reason',
  'rule',
  'className',
  'subjectId',
  'clientId',
  'certificateSerial',
  'peerAddress',
  'zone',
  'topic',
  'deviceId',
] as const satisfies ReadonlyArray<keyof NewAdmission>

// Certificates are locked in the order of their serials: two authorizers with the same devices cannot deadlock. What was
// seen less than a minute ago is not written again, because a fleet that reconnects would rewrite its whole table.
const RECORD = `
  WITH given AS (
    SELECT * FROM unnest($2::timestamptz[], $3::int[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::text[],
                         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::uuid[])
      WITH ORDINALITY AS g (at, count, action, allowed, reason, rule, class_name, subject_id, client_id,
                            certificate_serial, peer_address, zone, topic, device_id, place)
  ), inserted AS (
    INSERT INTO admissions (at, count, action, allowed, reason, rule, class_name, subject_id, client_id,
                            certificate_serial, peer_address, zone, topic, device_id, organization_id, batch_id, batch_index)
    SELECT g.at, g.count, g.action, g.allowed, g.reason, g.rule, g.class_name, g.subject_id, g.client_id,
           g.certificate_serial, g.peer_address, g.zone, g.topic, g.device_id, d.organization_id, $1::uuid, g.place
      FROM given g LEFT JOIN devices d ON d.id = g.device_id
     ORDER BY g.place
    ON CONFLICT (batch_id, batch_index) DO NOTHING
    RETURNING 1
  ), seen AS (
    SELECT certificate_serial AS serial, min(at) AS first, max(at) AS last
      FROM given WHERE action = 'connect' AND allowed AND certificate_serial IS NOT NULL GROUP BY 1
  ), before AS (
    SELECT c.serial, c.device_id, c.first_seen_at, seen.first, seen.last
      FROM certificates c JOIN seen ON seen.serial = c.serial
     WHERE c.first_seen_at IS NULL OR c.first_seen_at > seen.first OR c.last_seen_at < seen.last - interval '1 minute'
     ORDER BY c.serial FOR NO KEY UPDATE OF c
  ), updated AS (
    UPDATE certificates c
       SET first_seen_at = least(c.first_seen_at, before.first), last_seen_at = greatest(c.last_seen_at, before.last)
      FROM before WHERE before.serial = c.serial
    RETURNING c.serial, c.device_id, before.first_seen_at IS NULL AS is_first
  )
  SELECT (SELECT count(*)::int FROM inserted) AS stored,
         coalesce((SELECT json_agg(json_build_object('serial', serial, 'deviceId', device_id)) FROM updated WHERE is_first),
                  '[]') AS first`

const PRUNE = 'DELETE FROM admissions WHERE id IN (SELECT id FROM admissions WHERE at < $1 ORDER BY at LIMIT $2)'
