import type { Finding, FindingSource } from './findings'
import type { FleetStore, SharedCertificate } from './fleet.store'

/** One certificate that more than one party uses, as the connections of the last day show it. */
export class SharingFindings implements FindingSource {
  readonly name = 'connections'

  constructor(private readonly store: FleetStore) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const [names, places] = await Promise.all([
      this.store.underTwoNames(organizationIds),
      this.store.fromTwoPlaces(organizationIds),
    ])
    return [
      ...names.map(({ client_ids, ...row }) =>
        finding(
          row,
          'certificate_under_two_names',
          `It was presented under another client id than its device's: ${client_ids.map((id) => id.slice(0, 64)).join(', ')}. These connections were refused.`,
        ),
      ),
      ...places.map(({ addresses, ...row }) =>
        finding(
          row,
          'certificate_at_two_addresses',
          `Connections with it come in turns from ${addresses.join(' and ')} within ten minutes: each closes the other.`,
        ),
      ),
    ]
  }
}

const finding = (
  { serial, device_id, name, organization_id }: SharedCertificate,
  code: string,
  cause: string,
): Finding => ({
  code,
  severity: 'critical',
  organizationId: organization_id,
  subject: { kind: 'certificate', id: serial, name: `${name} (${device_id})` },
  cause,
  remedy:
    'Its key may have been copied. Give the device a new key and certificate, then revoke this one: POST /devices/{deviceId}/certificates/{serial}/revoke.',
})
