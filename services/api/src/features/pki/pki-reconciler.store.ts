import type { Pool } from 'pg'

/** A certificate as the database has it. */
export interface KnownCertificate {
  readonly serial: string
  readonly deviceId: string
  readonly organizationId: string
  readonly state: 'active' | 'retired' | 'revoked'
  readonly notAfter: Date
  readonly createdAt: Date
}

export class PkiReconcilerStore {
  constructor(private readonly pool: Pool) {}

  async certificates(): Promise<KnownCertificate[]> {
    const { rows } = await this.pool.query<KnownCertificate>(`
      SELECT c.serial, c.device_id AS "deviceId", d.organization_id AS "organizationId", c.state,
             c.not_after AS "notAfter", c.created_at AS "createdAt"
        FROM certificates c JOIN devices d ON d.id = c.device_id`)
    return rows
  }

  /** Serials of revocations that are not finished: of a device that is deleted there is no certificate any more. */
  async serialsBeingRevoked(): Promise<string[]> {
    const { rows } = await this.pool.query<{ serial: string }>(
      'SELECT unnest(serials) AS serial FROM revocations WHERE finished_at IS NULL',
    )
    return rows.map(({ serial }) => serial)
  }

  async organizationOf(deviceId: string): Promise<string | undefined> {
    const { rows } = await this.pool.query<{ id: string }>(
      'SELECT organization_id AS id FROM devices WHERE id::text = $1',
      [deviceId],
    )
    return rows[0]?.id
  }
}
