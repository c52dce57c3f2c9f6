import type { Pool } from 'pg'
import type { Finding, FindingSource } from './findings'

/** Certificates that end, devices that never came, revocations that do not come through: what the tables say. */
export class CertificateFindings implements FindingSource {
  readonly name = 'certificates'

  constructor(private readonly pool: Pick<Pool, 'query'>) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const lists = await Promise.all([
      this.ending(organizationIds),
      this.neverSeen(organizationIds),
      this.unfinished(organizationIds),
    ])
    return lists.flat()
  }

  /** Active devices whose last good certificate ends within a week, or has ended. */
  private async ending(organizationIds: readonly string[]): Promise<Finding[]> {
    const { rows } = await this.pool.query<DeviceRow & { ends: Date; asked: Date | null }>(ENDING, [organizationIds])
    return rows.map(({ id, name, organization_id, ends, asked }) => {
      const leftMs = ends.getTime() - Date.now()
      const tried = asked
        ? `It asked for a new one at ${asked.toISOString()} and has not connected with it.`
        : NOT_ASKED
      const about = { organizationId: organization_id, subject: { kind: 'device', id, name } } as const
      return leftMs <= 0
        ? {
            ...about,
            code: 'certificate_ended',
            severity: 'critical',
            cause: `Its certificate ended at ${ends.toISOString()}: it cannot connect any more. ${tried}`,
            remedy:
              'Have the device make a new CSR, sign it with POST /devices/{deviceId}/certificates, and bring it there.',
          }
        : {
            ...about,
            code: 'certificate_ends_soon',
            severity: leftMs < DAY_MS ? 'critical' : 'warning',
            cause: `Its certificate ends at ${ends.toISOString()}, and a device renews it after half of its life. ${tried}`,
            remedy: 'See that the device is online and publishes a CSR on ares4/{id}/certificate/request.',
          }
    })
  }

  private async neverSeen(organizationIds: readonly string[]): Promise<Finding[]> {
    const { rows } = await this.pool.query<DeviceRow & { issued: Date }>(NEVER_SEEN, [organizationIds])
    return rows.map(({ id, name, organization_id, issued }) => ({
      code: 'device_never_seen',
      severity: 'warning',
      organizationId: organization_id,
      subject: { kind: 'device', id, name },
      cause: `It has had a certificate since ${issued.toISOString()} and has never connected.`,
      remedy:
        'Look at its admissions (GET /devices/{deviceId}/admissions): a refused connection names the reason. When there is none, it does not reach the broker. If the device is not wanted, delete it: its certificate is a way in.',
    }))
  }

  private async unfinished(organizationIds: readonly string[]): Promise<Finding[]> {
    const { rows } = await this.pool.query<{
      id: string
      organization_id: string
      kind: string
      device_id: string
      created_at: Date
      failed_step: string | null
    }>(UNFINISHED, [organizationIds])
    return rows.map((row) => ({
      code: 'revocation_unfinished',
      severity: 'critical',
      organizationId: row.organization_id,
      subject: { kind: 'revocation', id: row.id, name: null },
      cause: `The ${row.kind === 'certificate' ? 'revocation of a certificate' : row.kind} of device ${row.device_id} of ${row.created_at.toISOString()} is not through${row.failed_step ? `: ${row.failed_step} fails` : ''}.`,
      remedy:
        'It is tried again by itself. See that Vault, the broker and the authorizers are there (readiness of api).',
    }))
  }
}

interface DeviceRow {
  readonly id: string
  readonly name: string
  readonly organization_id: string
}

const DAY_MS = 24 * 3_600_000
const NOT_ASKED = 'It has not asked for a new one.'

/** A quarter of its life for a certificate that is made for less than a month. */
const ENDING = `
  SELECT d.id, d.name, d.organization_id, last.not_after AS ends, pending.created_at AS asked
    FROM devices d
    JOIN LATERAL (
           SELECT c.* FROM certificates c
            WHERE c.device_id = d.id AND c.state <> 'revoked' AND NOT (c.supersedes IS NOT NULL AND c.first_seen_at IS NULL)
            ORDER BY c.not_after DESC LIMIT 1) last ON true
    LEFT JOIN LATERAL (
           SELECT c.created_at FROM certificates c
            WHERE c.device_id = d.id AND c.state = 'active' AND c.supersedes IS NOT NULL AND c.first_seen_at IS NULL
            ORDER BY c.created_at DESC LIMIT 1) pending ON true
   WHERE d.organization_id = ANY ($1::uuid[]) AND d.state = 'active'
     AND last.not_after < now() + least(interval '7 days', (last.not_after - last.created_at) / 4)
   ORDER BY last.not_after LIMIT 200`

const NEVER_SEEN = `
  SELECT d.id, d.name, d.organization_id, min(c.created_at) AS issued
    FROM devices d JOIN certificates c ON c.device_id = d.id
   WHERE d.organization_id = ANY ($1::uuid[]) AND d.state = 'active' AND d.last_seen_at IS NULL
   GROUP BY d.id
  HAVING min(c.created_at) < now() - interval '1 hour' AND bool_and(c.first_seen_at IS NULL)
     AND bool_or(c.state = 'active' AND c.not_after > now())
   ORDER BY issued LIMIT 200`

const UNFINISHED = `
  SELECT id, organization_id, kind::text, device_id, created_at, failed_step FROM revocations
   WHERE organization_id = ANY ($1::uuid[]) AND finished_at IS NULL AND created_at < now() - interval '30 seconds'
   ORDER BY created_at LIMIT 200`
