import { randomUUID } from 'node:crypto'
import type { PlainMessage, PlainMetrics, PlainRequest } from '@ares/proto/plain-telemetry'

/** Messages as a listener hands them over. */

export interface ReportOptions {
  readonly component?: string
  readonly at?: number
  readonly receivedAt?: number
  readonly sequence?: number
}

export function reportOf(
  deviceId: string,
  metrics: PlainMetrics,
  { component = 'dht22-1', at, receivedAt = Date.now(), sequence }: ReportOptions = {},
): PlainMessage {
  return {
    deviceId,
    receivedAt,
    payload: Buffer.from(JSON.stringify({ component, metrics, sequence })),
    topic: '',
    content: {
      $case: 'report',
      value: {
        component,
        metrics,
        timestamp: at,
        sequence: sequence === undefined ? undefined : BigInt(sequence),
        samples: [],
      },
    },
  }
}

export const garbageOf = (deviceId: string, payload = '{', receivedAt = Date.now()): PlainMessage => ({
  deviceId,
  receivedAt,
  payload: Buffer.from(payload),
  topic: '',
  content: { $case: 'undecodable', value: { reason: 'malformed', detail: 'not JSON' } },
})

export const batchOf = (messages: readonly PlainMessage[]): PlainRequest => ({
  batchId: randomUUID(),
  listener: 'ares4-mqtt-listener-00000001',
  messages,
})
