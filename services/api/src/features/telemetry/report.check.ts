import type { PlainMessage, PlainMetrics, PlainValue } from '@ares/proto/plain-telemetry'
import type { DeviceHardware, MetricRule } from './hardware'

/** How far a device's clock may run ahead of ours. */
export const MAX_AHEAD_MS = 5 * 60_000
const MAX_TEXT_BYTES = 1_024

/** What the check looks at. */
export type CheckableMessage = Pick<PlainMessage, 'deviceId' | 'receivedAt' | 'content'>

/** One row that a report asks for. */
export interface CheckedSample {
  readonly componentId: number
  /** Epoch milliseconds. */
  readonly capturedAt: number
  readonly metrics: PlainMetrics
}

/** Why a message cannot become telemetry; the words are those of the contract. */
export interface RefusalReason {
  readonly reason: string
  readonly detail: string
}

export type Check =
  | { readonly kind: 'accepted'; readonly samples: readonly CheckedSample[] }
  | ({ readonly kind: 'refused' } & RefusalReason)

/**
 * Checks one message against the hardware of its device.
 * A report is stored as a whole or not at all: one bad value makes the message a dead letter. So a dead letter can be
 * replayed as it is once its cause is mended, and every message counts exactly once as committed, duplicate or dead.
 * A disabled device is not refused here: what the broker took before it was cut off was said while it was allowed to.
 * @param now epoch milliseconds
 */
export function checkMessage(message: CheckableMessage, hardware: DeviceHardware | undefined, now: number): Check {
  const { content } = message
  if (!content) return refused('malformed', 'the message has no content')
  if (content.$case === 'undecodable') return refused(content.value.reason || 'malformed', content.value.detail)
  if (!hardware) return refused('unknown_device', `there is no device ${shown(message.deviceId)}`)

  const report = content.value
  const reportedAt = report.timestamp ?? message.receivedAt ?? now
  if (report.samples.length === 0) {
    const sample = checkSample(report.component, reportedAt, report.metrics, hardware, now)
    return 'reason' in sample ? { kind: 'refused', ...sample } : { kind: 'accepted', samples: [sample] }
  }
  if (hasKeys(report.metrics)) return refused('malformed', 'a report has either metrics or samples, not both')
  const samples: CheckedSample[] = []
  for (const { component, timestamp, metrics } of report.samples) {
    const capturedAt = timestamp ?? reportedAt
    const sample = checkSample(component || report.component, capturedAt, metrics, hardware, now)
    if ('reason' in sample) return { kind: 'refused', ...sample }
    samples.push(sample)
  }
  return { kind: 'accepted', samples }
}

/** The reasons that a change of the hardware may have made untrue since it was read. */
export const isAboutHardware = (reason: string): boolean =>
  reason === 'unknown_device' ||
  reason === 'unknown_component' ||
  reason === 'unknown_metric' ||
  reason === 'wrong_type' ||
  reason === 'out_of_range' ||
  reason === 'too_old'

function checkSample(
  componentName: string,
  capturedAt: number,
  metrics: PlainMetrics,
  hardware: DeviceHardware,
  now: number,
): CheckedSample | RefusalReason {
  const component = hardware.components.get(componentName)
  if (!component) return { reason: 'unknown_component', detail: `the device has no component ${shown(componentName)}` }
  if (!(capturedAt <= now + MAX_AHEAD_MS)) {
    return {
      reason: 'too_far_ahead',
      detail: `${shownTime(capturedAt)} is more than 5 min ahead of the server's clock`,
    }
  }
  if (capturedAt < now - hardware.retentionMs) {
    const days = hardware.retentionMs / 86_400_000
    return { reason: 'too_old', detail: `${shownTime(capturedAt)} is older than the ${days} days that are kept` }
  }
  let isEmpty = true
  for (const name in metrics) {
    isEmpty = false
    const rule = component.metrics.get(name)
    if (!rule) {
      return { reason: 'unknown_metric', detail: `the component ${shown(componentName)} has no metric ${shown(name)}` }
    }
    const problem = checkValue(rule, metrics[name])
    if (problem) return problem
  }
  if (isEmpty) return { reason: 'empty', detail: 'the report has no value' }
  return { componentId: component.id, capturedAt, metrics }
}

/** @returns what is wrong with the value, if anything is */
function checkValue(rule: MetricRule, value: PlainValue | undefined): RefusalReason | undefined {
  if (value === undefined) return { reason: 'bad_value', detail: `the metric ${shown(rule.name)} has no value` }
  const kind = kindOf(value)
  if (kind !== rule.kind) {
    return {
      reason: 'wrong_type',
      detail: `the metric ${shown(rule.name)} is a ${rule.kind}, the report has a ${kind}`,
    }
  }
  if (typeof value === 'number') return checkNumber(rule, value)
  return typeof value === 'string' ? checkText(rule, value) : undefined
}

function kindOf(value: PlainValue): MetricRule['kind'] {
  if (typeof value === 'number') return 'number'
  return typeof value === 'boolean' ? 'boolean' : 'text'
}

function checkNumber(rule: MetricRule, value: number): RefusalReason | undefined {
  if (!Number.isFinite(value)) {
    return { reason: 'bad_value', detail: `the metric ${shown(rule.name)} is not a finite number` }
  }
  if (rule.minimum !== undefined && value < rule.minimum) {
    return { reason: 'out_of_range', detail: `${shown(rule.name)} = ${value} is below the minimum ${rule.minimum}` }
  }
  if (rule.maximum !== undefined && value > rule.maximum) {
    return { reason: 'out_of_range', detail: `${shown(rule.name)} = ${value} is above the maximum ${rule.maximum}` }
  }
  return undefined
}

function checkText(rule: MetricRule, value: string): RefusalReason | undefined {
  if (Buffer.byteLength(value) > MAX_TEXT_BYTES) {
    return { reason: 'bad_value', detail: `the text of ${shown(rule.name)} has more than ${MAX_TEXT_BYTES} bytes` }
  }
  // PostgreSQL's jsonb takes every character but this one: "unsupported Unicode escape sequence".
  if (value.includes('\u0000')) {
    return {
      reason: 'bad_value',
      detail: `the text of ${shown(rule.name)} has a NUL character, which cannot be stored`,
    }
  }
  return undefined
}

const refused = (reason: string, detail: string): Check => ({ kind: 'refused', reason, detail })

const shown = (name: string): string => JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name)

const shownTime = (time: number): string => {
  const date = new Date(time)
  return Number.isNaN(date.getTime()) ? 'the timestamp' : date.toISOString()
}

function hasKeys(record: object): boolean {
  for (const _ in record) return true
  return false
}
