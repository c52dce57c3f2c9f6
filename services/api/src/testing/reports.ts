import { randomUUID } from 'node:crypto'
import { type IngestRequest, type Message, type MetricValue, Report } from '@ares/proto/telemetry/v1/telemetry'

/** Messages as a listener hands them over. */

export interface ReportOptions {
  readonly component?: string
  readonly at?: number
  readonly receivedAt?: number
  readonly sequence?: number
}

export function reportOf(
  deviceId: string,
  metrics: Readonly<Record<string, number | boolean | string>>,
  { component = 'dht22-1', at, receivedAt = Date.now(), sequence }: ReportOptions = {},
): Message {
  const report = Report.fromPartial({
    component,
    metrics: Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, metricValue(value)])),
    ...(at === undefined ? {} : { timestamp: new Date(at) }),
    ...(sequence === undefined ? {} : { sequence: BigInt(sequence) }),
  })
  const payload = Buffer.from(JSON.stringify({ component, metrics, sequence }))
  return { deviceId, receivedAt: new Date(receivedAt), payload, topic: '', content: { $case: 'report', value: report } }
}

export const garbageOf = (deviceId: string, payload = '{', receivedAt = Date.now()): Message => ({
  deviceId,
  receivedAt: new Date(receivedAt),
  payload: Buffer.from(payload),
  topic: '',
  content: { $case: 'undecodable', value: { reason: 'malformed', detail: 'not JSON' } },
})

export const batchOf = (messages: Message[]): IngestRequest => ({
  batchId: randomUUID(),
  listener: 'ares4-mqtt-listener-00000001',
  messages,
})

function metricValue(value: number | boolean | string): MetricValue {
  if (typeof value === 'number') return { value: { $case: 'number', value } }
  if (typeof value === 'boolean') return { value: { $case: 'flag', value } }
  return { value: { $case: 'text', value } }
}
