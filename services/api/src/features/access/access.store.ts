import type { Pool } from 'pg'

export interface CertificateFact {
  readonly serial: string
  readonly deviceId: string
  readonly notBefore: Date
  readonly notAfter: Date
}

/** What api itself has to know to ask an authorizer, and to see who may ask. */
export class AccessStore {
  constructor(private readonly pool: Pool) {}

  async certificate(serial: string): Promise<CertificateFact | undefined> {
    const { rows } = await this.pool.query<CertificateFact>(`${CERTIFICATE} WHERE serial = $1`, [serial])
    return rows[0]
  }

  /** The one that the device most likely shows: the newest that is good, else the newest. */
  async newestCertificate(deviceId: string): Promise<CertificateFact | undefined> {
    const { rows } = await this.pool.query<CertificateFact>(
      `${CERTIFICATE} WHERE device_id = $1
        ORDER BY (state = 'active' AND not_after > now()) DESC, created_at DESC, serial LIMIT 1`,
      [deviceId],
    )
    return rows[0]
  }

  /** Whether somebody may ask about a person: about oneself, and about members of an organization that one owns. */
  async mayAskAbout(userId: string, email: string): Promise<boolean> {
    const { rowCount } = await this.pool.query(
      `SELECT 1 FROM users u WHERE u.email = $2 AND (u.id = $1 OR EXISTS (
         SELECT 1 FROM memberships theirs JOIN memberships mine USING (organization_id)
          WHERE theirs.user_id = u.id AND mine.user_id = $1 AND mine.role = 'owner'))`,
      [userId, email],
    )
    return Boolean(rowCount)
  }

  async organizationsOf(userId: string): Promise<ReadonlySet<string>> {
    const { rows } = await this.pool.query<{ id: string }>(
      'SELECT organization_id AS id FROM memberships WHERE user_id = $1',
      [userId],
    )
    return new Set(rows.map(({ id }) => id))
  }
}

const CERTIFICATE = `
  SELECT serial, device_id AS "deviceId", not_before AS "notBefore", not_after AS "notAfter" FROM certificates`
