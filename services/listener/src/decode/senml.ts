import type { PlainReport, PlainSample, PlainValue } from '@ares/proto/plain-telemetry'
import { guarded, MAX_SAMPLES, Unreadable } from './decoder'
import { parseJson } from './json-scan'
import { checkMetricName, checkShape, instantOf, metricValue, quoted } from './report-rules'

/**
 * SenML JSON (RFC 8428). A pack is resolved (base fields bn, bt, bv, bs, bver; bu and u are the blueprint's business and
 * only checked for their type), then its records of one component and instant become one sample.
 *
 * - The resolved name is split at its last `:` or `/`: `dht22-1:temperature` is metric `temperature` of component
 *   `dht22-1`, `urn:dev:ow:10e2073a01080063:temp` is `temp` of `urn:dev:ow:10e2073a01080063`.
 * - A sum (`s`) becomes a metric of its own, `<metric>_sum`.
 * - A time below 2^28 counts from the receipt, as the RFC says; none or 0 is the receipt.
 * - `vd` (bytes) is nothing we store: bad_value. A field that ends with `_` must be understood, so it is refused.
 */
export const senml = guarded((payload, receivedAt) => {
  const pack = parseJson(payload)
  if (!Array.isArray(pack)) throw new Unreadable('malformed', 'a SenML pack is an array')
  const base: Base = { name: '', time: 0, value: 0, sum: 0 }
  const samples = new Map<string, SampleSoFar>()
  pack.forEach((item, index) => {
    const record = recordOf(item, index)
    applyBase(base, record, index)
    if (isBaseOnly(record)) return
    addRecord(samples, base, record, { index, receivedAt })
  })
  const [only, ...more] = samples.values()
  if (only && more.length === 0) return checkShape({ ...only, sequence: undefined, samples: [] } satisfies PlainReport)
  return checkShape({
    sequence: undefined,
    component: '',
    timestamp: undefined,
    metrics: {},
    samples: [...samples.values()],
  } satisfies PlainReport)
})

type SampleSoFar = PlainSample & { readonly metrics: Record<string, PlainValue> }

/** Base fields, as they stand after the records so far. */
interface Base {
  name: string
  time: number
  value: number
  sum: number
}

/** Fields of a record, after their types have been checked. */
type SenmlRecord = Readonly<Record<string, unknown>> & {
  readonly bn?: string
  readonly bt?: number
  readonly bv?: number
  readonly bs?: number
  readonly bver?: number
  readonly n?: string
  readonly t?: number
  readonly v?: number
  readonly s?: number
}

const VERSION = 10
const TYPES: Readonly<Record<string, string>> = {
  bn: 'string',
  bt: 'number',
  bu: 'string',
  bv: 'number',
  bs: 'number',
  bver: 'number',
  n: 'string',
  u: 'string',
  v: 'number',
  vs: 'string',
  vb: 'boolean',
  vd: 'string',
  s: 'number',
  t: 'number',
  ut: 'number',
}

function recordOf(item: unknown, index: number): SenmlRecord {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) {
    throw new Unreadable('malformed', `record ${index} must be an object`)
  }
  for (const [field, value] of Object.entries(item)) {
    const type = Object.hasOwn(TYPES, field) ? TYPES[field] : undefined
    if (type === undefined && field.endsWith('_')) {
      throw new Unreadable('malformed', `record ${index} has the field ${quoted(field)}, which must be understood`)
    }
    if (type !== undefined && typeof value !== type) {
      const reason = field === 't' || field === 'bt' ? 'bad_timestamp' : 'bad_value'
      throw new Unreadable(reason, `record ${index}: ${field} must be a ${type}`)
    }
  }
  return item as SenmlRecord
}

function applyBase(base: Base, record: SenmlRecord, index: number): void {
  if (record.bver !== undefined && record.bver > VERSION) {
    throw new Unreadable('malformed', `record ${index} is SenML version ${record.bver}, known is ${VERSION}`)
  }
  base.name = record.bn ?? base.name
  base.time = record.bt ?? base.time
  base.value = record.bv ?? base.value
  base.sum = record.bs ?? base.sum
}

const isBaseOnly = (record: SenmlRecord): boolean =>
  !['n', 't', 'v', 'vs', 'vb', 'vd', 's'].some((field) => field in record)

function addRecord(
  samples: Map<string, SampleSoFar>,
  base: Base,
  record: SenmlRecord,
  at: { readonly index: number; readonly receivedAt: number },
): void {
  const { component, metric } = namesOf(`${base.name}${record.n ?? ''}`, at.index)
  const timestamp = timeOf(base.time + (record.t ?? 0), at.receivedAt)
  const key = `${timestamp ?? ''} ${component}`
  let sample = samples.get(key)
  if (!sample) {
    if (samples.size >= MAX_SAMPLES) throw new Unreadable('bad_value', `more than ${MAX_SAMPLES} samples`)
    sample = { component, timestamp, metrics: {} }
    samples.set(key, sample)
  }
  const value = resolvedValue(base, record, at.index)
  if (value !== undefined) addMetric(sample, metric, metricValue(value, metric))
  if (record.s !== undefined) addMetric(sample, `${metric}_sum`, metricValue(base.sum + record.s, `${metric}_sum`))
}

function addMetric(sample: SampleSoFar, name: string, value: PlainValue): void {
  checkMetricName(name)
  if (Object.hasOwn(sample.metrics, name)) {
    throw new Unreadable('duplicate_key', `metric ${quoted(name)} occurs twice for one component and instant`)
  }
  sample.metrics[name] = value
}

// RFC 8428 section 4.5.1
const NAME = /^[A-Za-z0-9][A-Za-z0-9\-:./_]*$/

function namesOf(name: string, index: number): { component: string; metric: string } {
  if (!NAME.test(name)) throw new Unreadable('bad_value', `record ${index} has no name that SenML allows`)
  const split = Math.max(name.lastIndexOf(':'), name.lastIndexOf('/'))
  const component = name.slice(0, Math.max(split, 0))
  if (component === '')
    throw new Unreadable('bad_value', `record ${index} names no component: wanted is component:metric`)
  return { component, metric: name.slice(split + 1) }
}

// RFC 8428 section 4.5.3: values below 2^28 are relative to now.
const FIRST_ABSOLUTE_SECOND = 2 ** 28

function timeOf(seconds: number, receivedAt: number): number | undefined {
  if (seconds === 0) return undefined
  const origin = seconds < FIRST_ABSOLUTE_SECOND ? receivedAt : 0
  return instantOf(origin + Math.round(seconds * 1_000), 'the time of a record')
}

function resolvedValue(base: Base, record: SenmlRecord, index: number): number | string | boolean | undefined {
  const fields = ['v', 'vs', 'vb', 'vd'].filter((field) => field in record)
  if (fields.length > 1) throw new Unreadable('malformed', `record ${index} has more than one value`)
  if ('vd' in record) throw new Unreadable('bad_value', `record ${index}: vd (bytes) is not stored`)
  if (record.v !== undefined) return base.value + record.v
  if (fields.length === 0 && record.s === undefined) throw new Unreadable('malformed', `record ${index} has no value`)
  return (record.vs ?? record.vb) as string | boolean | undefined
}
