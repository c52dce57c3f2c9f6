import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'

/** One device with one component `sensor`, written straight into the tables. */
export interface TestDevice {
  readonly organizationId: string
  readonly blueprintId: string
  readonly supportedComponentId: string
  readonly deviceId: string
  /** Key of the component's telemetry. */
  readonly componentId: number
}

/** Metrics of the component `sensor`: temperature (number, -40..85), humidity (number), heater_on (boolean), note (text). */
export async function createTestDevice(
  pool: Pool,
  options: { readonly retentionDays?: number; readonly wantsReceipts?: boolean } = {},
): Promise<TestDevice> {
  const [organizationId, blueprintId, supportedComponentId, deviceId] = Array.from({ length: 4 }, () => randomUUID())
  await pool.query('INSERT INTO organizations (id, name, telemetry_retention_days) VALUES ($1, $2, $3)', [
    organizationId,
    `organization ${organizationId}`,
    options.retentionDays ?? 90,
  ])
  await pool.query('INSERT INTO blueprints (id, organization_id, name, wants_receipts) VALUES ($1, $2, $3, $4)', [
    blueprintId,
    organizationId,
    'station',
    options.wantsReceipts ?? true,
  ])
  await pool.query('INSERT INTO supported_components (id, blueprint_id, name) VALUES ($1, $2, $3)', [
    supportedComponentId,
    blueprintId,
    'dht22',
  ])
  const metrics: ReadonlyArray<readonly [string, string, number | null, number | null]> = [
    ['temperature', 'number', -40, 85],
    ['humidity', 'number', null, null],
    ['heater_on', 'boolean', null, null],
    ['note', 'text', null, null],
  ]
  for (const [name, kind, minimum, maximum] of metrics) {
    await pool.query(
      'INSERT INTO metrics (id, supported_component_id, name, kind, minimum, maximum) VALUES ($1, $2, $3, $4::metric_kind, $5, $6)',
      [randomUUID(), supportedComponentId, name, kind, minimum, maximum],
    )
  }
  await pool.query('INSERT INTO devices (id, organization_id, blueprint_id, name) VALUES ($1, $2, $3, $4)', [
    deviceId,
    organizationId,
    blueprintId,
    `device ${deviceId}`,
  ])
  const componentId = await attachComponent(pool, deviceId!, supportedComponentId!, 'sensor')
  return {
    organizationId: organizationId!,
    blueprintId: blueprintId!,
    supportedComponentId: supportedComponentId!,
    deviceId: deviceId!,
    componentId,
  }
}

/** @returns the key of its telemetry */
export async function attachComponent(
  pool: Pool,
  deviceId: string,
  supportedComponentId: string,
  name: string,
): Promise<number> {
  const { rows } = await pool.query<{ id: number }>(
    'INSERT INTO component_instances (device_id, supported_component_id, name) VALUES ($1, $2, $3) RETURNING id',
    [deviceId, supportedComponentId, name],
  )
  return rows[0]!.id
}
