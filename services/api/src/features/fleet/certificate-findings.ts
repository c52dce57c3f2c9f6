import type { Finding, FindingSource } from './findings'
import type { FleetStore } from './fleet.store'

/** Certificates that end, devices that never came, revocations that do not come through: what the tables say. */
export class CertificateFindings implements FindingSource {
  readonly name = 'certificates'

  constructor(private readonly store: FleetStore) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const lists = await Promise.all([
      this.ending(organizationIds),
      this.neverSeen(organizationIds),
      this.unfinished(organizationIds),
    ])
    return lists.flat()
  }

  private async ending(organizationIds: readonly string[]): Promise<Finding[]> {
    const rows = await this.store.ending(organizationIds)
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
    const rows = await this.store.neverSeen(organizationIds)
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
    const rows = await this.store.unfinished(organizationIds)
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

const DAY_MS = 24 * 3_600_000
const NOT_ASKED = 'It has not asked for a new one.'
