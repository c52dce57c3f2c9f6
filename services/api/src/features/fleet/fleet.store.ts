import type { Pool } from 'pg'

/** A device that is mentioned in a finding. */
export interface DeviceRow {
  readonly id: string
  readonly name: string
  readonly organization_id: string
}

export interface CutOffDevice extends DeviceRow {
  readonly state: 'active' | 'disabled'
  readonly revoked_at: Date | null
}

export interface UnfinishedRevocation {
  readonly id: string
  readonly organization_id: string
  readonly kind: string
  readonly device_id: string
  readonly created_at: Date
  readonly failed_step: string | null
}

/** A certificate that more than one party uses. */
export interface SharedCertificate {
  readonly serial: string
  readonly device_id: string
  readonly name: string
  readonly organization_id: string
}

/** What the tables say of things that are wrong or soon will be: at most 200 of each kind. */
export class FleetStore {
  constructor(private readonly pool: Pick<Pool, 'query'>) {}

  /** Devices that are disabled or have lost a certificate, those of the last moment first. */
  cutOff(organizationIds: readonly string[]): Promise<CutOffDevice[]> {
    return this.read(CUT_OFF, organizationIds)
  }

  /** Active devices whose last good certificate ends within a week, or has ended. */
  ending(organizationIds: readonly string[]): Promise<Array<DeviceRow & { ends: Date; asked: Date | null }>> {
    return this.read(ENDING, organizationIds)
  }

  /** Devices with a certificate for an hour and more that have never connected. */
  neverSeen(organizationIds: readonly string[]): Promise<Array<DeviceRow & { issued: Date }>> {
    return this.read(NEVER_SEEN, organizationIds)
  }

  unfinished(organizationIds: readonly string[]): Promise<UnfinishedRevocation[]> {
    return this.read(UNFINISHED, organizationIds)
  }

  /** Certificates that were presented under another client id than their device's, within a day. */
  underTwoNames(organizationIds: readonly string[]): Promise<Array<SharedCertificate & { client_ids: string[] }>> {
    return this.read(UNDER_TWO_NAMES, organizationIds)
  }

  /** Certificates that came from two addresses in turns, within a day. */
  fromTwoPlaces(organizationIds: readonly string[]): Promise<Array<SharedCertificate & { addresses: string[] }>> {
    return this.read(FROM_TWO_PLACES, organizationIds)
  }

  private async read<Row extends object>(sql: string, organizationIds: readonly string[]): Promise<Row[]> {
    const { rows } = await this.pool.query<Row>(sql, [organizationIds])
    return rows
  }
}

/** What was done in the last seconds may still be on its way. */
const CUT_OFF = `
  SELECT d.id, d.name, d.organization_id, d.state, r.revoked_at
    FROM devices d
    LEFT JOIN LATERAL (
           SELECT max(c.revoked_at) AS revoked_at FROM certificates c
            WHERE c.device_id = d.id AND c.state = 'revoked' AND c.not_after > now()) r ON true
   WHERE d.organization_id = ANY ($1::uuid[])
     AND (d.state = 'disabled' AND d.updated_at < now() - interval '10 seconds'
          OR r.revoked_at < now() - interval '10 seconds')
   ORDER BY greatest(r.revoked_at, d.updated_at) DESC LIMIT 200`

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
