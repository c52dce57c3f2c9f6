import type { Pool } from 'pg'
import type { Finding, FindingSource } from './findings'

/** One certificate that more than one party uses, as the connections of the last day show it. */
export class SharingFindings implements FindingSource {
  readonly name = 'connections'

  constructor(private readonly pool: Pick<Pool, 'query'>) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const [names, places] = await Promise.all([
      this.pool.query<Shared & { client_ids: string[] }>(UNDER_TWO_NAMES, [organizationIds]),
      this.pool.query<Shared & { addresses: string[] }>(FROM_TWO_PLACES, [organizationIds]),
    ])
    return [
      ...names.rows.map(({ client_ids, ...row }) =>
        finding(
          row,
          'certificate_under_two_names',
          `It was presented under another client id than its device's: ${client_ids.map((id) => id.slice(0, 64)).join(', ')}. These connections were refused.`,
        ),
      ),
      ...places.rows.map(({ addresses, ...row }) =>
        finding(
          row,
          'certificate_at_two_addresses',
          `Connections with it come in turns from ${addresses.join(' and ')} within ten minutes: each closes the other.`,
        ),
      ),
    ]
  }
}

interface Shared {
  readonly serial: string
  readonly device_id: string
  readonly name: string
  readonly organization_id: string
}

const finding = ({ serial, device_id, name, organization_id }: Shared, code: string, cause: string): Finding => ({
  code,
  severity: 'critical',
  organizationId: organization_id,
  subject: { kind: 'certificate', id: serial, name: `${name} (${device_id})` },
  cause,
  remedy:
    'Its key may have been copied. Give the device a new key and certificate, then revoke this one: POST /devices/{deviceId}/certificates/{serial}/revoke.',
})

const UNDER_TWO_NAMES = `
  SELECT c.serial, c.device_id, d.name, d.organization_id,
         (array_agg(DISTINCT a.client_id) FILTER (WHERE a.client_id IS NOT NULL))[1:5] AS client_ids
    FROM admissions a
    JOIN certificates c ON c.serial = a.certificate_serial
    JOIN devices d ON d.id = c.device_id
   WHERE d.organization_id = ANY ($1::uuid[]) AND a.at > now() - interval '1 day'
     AND a.action = 'connect' AND NOT a.allowed AND a.reason = 'wrong_client_id' AND a.client_id <> d.id::text
   GROUP BY c.serial, c.device_id, d.name, d.organization_id
   LIMIT 200`

// From A, then from B, then from A again: a device that moves does not do that, nor one whose address changes.
const FROM_TWO_PLACES = `
  WITH connections AS (
    SELECT a.certificate_serial, a.device_id, a.at, a.peer_address AS here,
           lag(a.peer_address) OVER w AS before, lag(a.peer_address, 2) OVER w AS before_that, lag(a.at, 2) OVER w AS since
      FROM admissions a
     WHERE a.organization_id = ANY ($1::uuid[]) AND a.at > now() - interval '1 day'
       AND a.action = 'connect' AND a.allowed AND a.certificate_serial IS NOT NULL AND a.device_id IS NOT NULL
    WINDOW w AS (PARTITION BY a.certificate_serial ORDER BY a.at, a.id)
  )
  SELECT x.certificate_serial AS serial, d.id AS device_id, d.name, d.organization_id,
         (array_agg(DISTINCT x.here))[1:5] AS addresses
    FROM (SELECT certificate_serial, device_id, unnest(ARRAY[here, before]) AS here FROM connections
           WHERE here = before_that AND here <> before AND at - since < interval '10 minutes') x
    JOIN devices d ON d.id = x.device_id
   GROUP BY 1, 2, 3, 4
   LIMIT 200`
