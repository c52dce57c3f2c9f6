import { unary } from '@ares/chassis'
import type { DeviceServiceClient, DeviceStatus } from '@ares/proto/devices/v1/devices'
import { Batcher, type Settleable } from '../batcher'
import { Unreadable } from '../decode/decoder'
import { parseJson } from '../decode/json-scan'
import type { Delivery } from '../mqtt/holding-client'
import { bookkeeping, reasonOf, type Sink, type SinkParts } from './sink'
import type { TelemetrySink } from './telemetry-sink'

/** `ares4/{id}/status`: whether a device is online, from itself or from its will. */
export class StatusSink implements Sink {
  private readonly batcher: Batcher<HeldStatus>

  constructor(
    private readonly parts: SinkParts & {
      readonly client: DeviceServiceClient
      readonly deadLetters: Pick<TelemetrySink, 'takeUndecodable'>
    },
  ) {
    const { client, deadLetters, deadlineMs } = parts
    this.batcher = new Batcher<HeldStatus>(parts.limits, {
      ...bookkeeping('status', parts),
      async commit({ id, items }, signal) {
        const statuses = items.map((item) => item.status)
        await unary(client, client.recordStatus, { statuses }, { deadlineMs, signal, requestId: id })
        return undefined
      },
      condemn({ delivery, status }, error) {
        deadLetters.takeUndecodable(delivery, status.deviceId, { reason: 'rejected_by_store', detail: reasonOf(error) })
        return 'elsewhere'
      },
    })
  }

  take(delivery: Delivery, deviceId: string): void {
    const { messages } = this.parts.metrics
    // An empty retained message is how MQTT clears a topic: it says nothing about the device.
    if (delivery.payload.length === 0) {
      messages.inc({ kind: 'status', read: 'cleared' })
      delivery.settle()
      return
    }
    try {
      const online = readStatus(delivery.payload)
      messages.inc({ kind: 'status', read: 'status' })
      const status: DeviceStatus = { deviceId, online, receivedAt: new Date(delivery.receivedAt) }
      this.batcher.add({ bytes: delivery.payload.length, status, delivery, settle: () => delivery.settle() })
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      messages.inc({ kind: 'status', read: 'undecodable' })
      this.parts.deadLetters.takeUndecodable(delivery, deviceId, { reason: error.reason, detail: error.message })
    }
  }

  drain(): Promise<void> {
    return this.batcher.drain()
  }

  trim(most: { readonly items: number; readonly bytes: number }): void {
    this.batcher.trim(most)
  }

  stop(): void {
    this.batcher.stop()
  }
}

interface HeldStatus extends Settleable {
  readonly status: DeviceStatus
  readonly delivery: Delivery
}

const MAX_STATUS_BYTES = 1_024

/** `{"status":"online"}` or `{"status":"offline"}`. @throws Unreadable */
export function readStatus(payload: Buffer): boolean {
  if (payload.length > MAX_STATUS_BYTES) throw new Unreadable('too_large', `at most ${MAX_STATUS_BYTES} bytes`)
  const body = parseJson(payload) as { readonly status?: unknown } | null
  if (body?.status === 'online') return true
  if (body?.status === 'offline') return false
  throw new Unreadable('bad_value', 'status must be "online" or "offline"')
}
