/**
 * What ingestion knows of a device: its component instances and the metrics that each may report.
 * A snapshot of the tables devices, component_instances, supported_components and metrics, shaped for the check.
 */

export interface DeviceHardware {
  readonly deviceId: string
  readonly organizationId: string
  /** The device's kind asks for receipts and errors over MQTT. */
  readonly wantsReceipts: boolean
  /** Age in milliseconds from which its organization keeps no telemetry. */
  readonly retentionMs: number
  /** By the name that the device uses. */
  readonly components: ReadonlyMap<string, ComponentHardware>
}

export interface ComponentHardware {
  /** The key of its telemetry. */
  readonly id: number
  readonly metrics: ReadonlyMap<string, MetricRule>
}

export interface MetricRule {
  readonly name: string
  readonly kind: 'number' | 'boolean' | 'text'
  /** Inclusive. */
  readonly minimum?: number
  /** Inclusive. */
  readonly maximum?: number
}

/** Where the hardware comes from. */
export interface HardwareSource {
  /** Reads devices as they are committed now; a device that is not there is left out. @param deviceIds UUIDs */
  load(deviceIds: readonly string[]): Promise<DeviceHardware[]>
}
