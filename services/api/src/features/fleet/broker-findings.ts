import { DomainError } from '@ares/chassis'
import type { Pool } from 'pg'
import { z } from 'zod'
import type { Finding, FindingSource } from './findings'

/** What is needed of the broker's management API. */
export interface BrokerClients {
  call(method: string, path: string): Promise<{ readonly status: number; readonly body: unknown }>
}

/** Devices that were cut off and are connected all the same. */
export class BrokerFindings implements FindingSource {
  readonly name = 'broker'

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly broker: BrokerClients,
  ) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const { rows } = await this.pool.query<CutOff>(CUT_OFF, [organizationIds])
    const findings: Finding[] = []
    for (const device of rows) {
      const connectedAt = await this.connectedAt(device.id)
      if (connectedAt === undefined) continue
      // An active device that came back with another certificate is where it belongs.
      const isOld = device.revoked_at !== null && connectedAt.getTime() < device.revoked_at.getTime() - CLOCKS_MS
      if (device.state === 'active' && !isOld) continue
      findings.push({
        code: 'revoked_but_connected',
        severity: 'critical',
        organizationId: device.organization_id,
        subject: { kind: 'device', id: device.id, name: device.name },
        cause: `${device.state === 'disabled' ? 'It is disabled' : 'A certificate of it was revoked'}, and it has been connected since ${connectedAt.toISOString()}: it was not cut off.`,
        remedy:
          'Disable the device again (POST /devices/{deviceId}/disable): that ends its session. If it comes back, look at the age of the directory at the authorizers (their readiness).',
      })
    }
    return findings
  }

  /** undefined: it is not connected. */
  private async connectedAt(clientId: string): Promise<Date | undefined> {
    const { status, body } = await this.broker.call('GET', `/clients/${encodeURIComponent(clientId)}`)
    if (status === 404) return undefined
    if (status !== 200) throw new DomainError('unavailable', 'broker_unavailable', `The broker answers ${status}.`)
    const { connected, connected_at } = client.parse(body)
    return connected ? connected_at : undefined
  }
}

const client = z.object({ connected: z.boolean(), connected_at: z.coerce.date().optional() })

const CLOCKS_MS = 2_000

interface CutOff {
  readonly id: string
  readonly name: string
  readonly organization_id: string
  readonly state: 'active' | 'disabled'
  readonly revoked_at: Date | null
}

/** The newest first. What was done in the last seconds may still be on its way. */
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
