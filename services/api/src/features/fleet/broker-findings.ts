import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import type { Finding, FindingSource } from './findings'
import type { FleetStore } from './fleet.store'

/** What is needed of the broker's management API. */
export interface BrokerClients {
  call(method: string, path: string): Promise<{ readonly status: number; readonly body: unknown }>
}

/** Devices that were cut off and are connected all the same. */
export class BrokerFindings implements FindingSource {
  readonly name = 'broker'

  constructor(
    private readonly store: FleetStore,
    private readonly broker: BrokerClients,
  ) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const findings: Finding[] = []
    for (const device of await this.store.cutOff(organizationIds)) {
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
