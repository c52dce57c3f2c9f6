import type { Pool } from 'pg'
import type { ComponentHardware, DeviceHardware, HardwareSource, MetricRule } from './hardware'

const DAY_MS = 86_400_000

/** Reads the hardware of devices from PostgreSQL: two queries, whatever the number of devices. */
export class HardwareStore implements HardwareSource {
  constructor(private readonly pool: Pool) {}

  async load(deviceIds: readonly string[]): Promise<DeviceHardware[]> {
    const { rows } = await this.pool.query<DeviceRow>({ name: 'hardware-devices', text: DEVICES, values: [deviceIds] })
    const kinds = [...new Set(rows.flatMap((row) => row.components.map(([, , kind]) => kind)))]
    const metrics = await this.loadMetrics(kinds)
    return rows.map((row) => ({
      deviceId: row.id,
      organizationId: row.organization_id,
      wantsReceipts: row.wants_receipts,
      retentionMs: row.telemetry_retention_days * DAY_MS,
      components: new Map(
        row.components.map(([id, name, kind]): [string, ComponentHardware] => [
          name,
          { id, metrics: metrics.get(kind) ?? new Map() },
        ]),
      ),
    }))
  }

  /** Devices of one kind share the map of its metrics. */
  private async loadMetrics(kinds: readonly string[]): Promise<Map<string, Map<string, MetricRule>>> {
    const byKind = new Map(kinds.map((kind): [string, Map<string, MetricRule>] => [kind, new Map()]))
    if (kinds.length === 0) return byKind
    const { rows } = await this.pool.query<MetricRow>({ name: 'hardware-metrics', text: METRICS, values: [kinds] })
    for (const { supported_component_id, name, kind, minimum, maximum } of rows) {
      byKind.get(supported_component_id)?.set(name, {
        name,
        kind,
        ...(minimum === null ? {} : { minimum }),
        ...(maximum === null ? {} : { maximum }),
      })
    }
    return byKind
  }
}

interface DeviceRow {
  readonly id: string
  readonly organization_id: string
  readonly wants_receipts: boolean
  readonly telemetry_retention_days: number
  /** Id of the instance, its name, id of the supported component. */
  readonly components: readonly (readonly [number, string, string])[]
}

interface MetricRow {
  readonly supported_component_id: string
  readonly name: string
  readonly kind: MetricRule['kind']
  readonly minimum: number | null
  readonly maximum: number | null
}

const DEVICES = `
  SELECT d.id, d.organization_id, b.wants_receipts, o.telemetry_retention_days,
         coalesce((SELECT json_agg(json_build_array(c.id, c.name, c.supported_component_id))
                     FROM component_instances c WHERE c.device_id = d.id), '[]') AS components
    FROM devices d
    JOIN blueprints b ON b.id = d.blueprint_id
    JOIN organizations o ON o.id = d.organization_id
   WHERE d.id = ANY ($1::uuid[])`

const METRICS = `
  SELECT supported_component_id, name, kind, minimum, maximum
    FROM metrics
   WHERE supported_component_id = ANY ($1::uuid[])`
