import type {
  IngestRequest,
  Message,
  MetricValue,
  Report,
  Sample,
  Undecodable,
} from './gen/ares/telemetry/v1/telemetry'

/**
 * The messages of telemetry as services hold them: a value is a value and an instant a number, where the generated types
 * make two objects of each value and one of each instant. The wire is the same (see ingest-codec.ts).
 */
export interface PlainRequest extends Pick<IngestRequest, 'batchId' | 'listener'> {
  readonly messages: readonly PlainMessage[]
}

export interface PlainMessage extends Readonly<Pick<Message, 'deviceId' | 'payload' | 'topic'>> {
  /** Epoch milliseconds; NaN for an instant that no Date can hold. */
  readonly receivedAt: number | undefined
  readonly content: PlainContent | undefined
}

export type PlainContent =
  | { readonly $case: 'report'; readonly value: PlainReport }
  | { readonly $case: 'undecodable'; readonly value: Undecodable }

export interface PlainReport extends PlainSample {
  readonly sequence: bigint | undefined
  readonly samples: readonly PlainSample[]
}

export interface PlainSample {
  readonly component: string
  /** Epoch milliseconds; NaN for an instant that no Date can hold. */
  readonly timestamp: number | undefined
  readonly metrics: PlainMetrics
}

/** Values by the name of the metric. undefined: none of the three is set, which no report may have. */
export type PlainMetrics = Readonly<Record<string, PlainValue | undefined>>
export type PlainValue = number | boolean | string

export const plainRequest = ({ batchId, listener, messages }: IngestRequest): PlainRequest => ({
  batchId,
  listener,
  messages: messages.map(({ deviceId, receivedAt, payload, content, topic }) => ({
    deviceId,
    receivedAt: receivedAt?.getTime(),
    payload,
    content: content?.$case === 'report' ? { $case: 'report', value: plainReport(content.value) } : content,
    topic,
  })),
})

export const contractMessage = ({ deviceId, receivedAt, payload, content, topic }: PlainMessage): Message => ({
  deviceId,
  receivedAt: dateOf(receivedAt),
  payload,
  content: content?.$case === 'report' ? { $case: 'report', value: contractReport(content.value) } : content,
  topic,
})

export const plainReport = ({ sequence, samples, ...rest }: Report): PlainReport => ({
  sequence,
  ...plainSample(rest),
  samples: samples.map(plainSample),
})

export const contractReport = ({ sequence, samples, ...rest }: PlainReport): Report => ({
  sequence,
  ...contractSample(rest),
  samples: samples.map(contractSample),
})

const plainSample = ({ component, timestamp, metrics }: Sample): PlainSample => ({
  component,
  timestamp: timestamp?.getTime(),
  metrics: plainMetrics(metrics),
})

const contractSample = ({ component, timestamp, metrics }: PlainSample): Sample => ({
  component,
  timestamp: dateOf(timestamp),
  metrics: Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, metricValue(value)])),
})

function plainMetrics(metrics: Readonly<Record<string, MetricValue>>): PlainMetrics {
  const entries = Object.entries(metrics).map(([name, { value }]): [string, PlainValue | undefined] => [
    name,
    value?.value,
  ])
  // The generated code assigns the entry `__proto__` as the prototype. It must not vanish: no metric has that name.
  if (Object.getPrototypeOf(metrics) !== Object.prototype) entries.push(['__proto__', undefined])
  return Object.fromEntries(entries)
}

function metricValue(value: PlainValue | undefined): MetricValue {
  switch (typeof value) {
    case 'number':
      return { value: { $case: 'number', value } }
    case 'boolean':
      return { value: { $case: 'flag', value } }
    case 'string':
      return { value: { $case: 'text', value } }
    default:
      return { value: undefined }
  }
}

const dateOf = (epochMs: number | undefined): Date | undefined =>
  epochMs === undefined ? undefined : new Date(epochMs)
