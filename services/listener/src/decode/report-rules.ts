import type { PlainMetrics, PlainReport, PlainSample, PlainValue } from '@ares/proto/plain-telemetry'
import { MAX_METRICS, MAX_NAME_LENGTH, MAX_SAMPLES, MAX_TEXT_BYTES, Unreadable } from './decoder'

/** What must be true of a report, whatever format it came in. Each function throws Unreadable with the reason. */

/** @throws Unreadable when the report has nothing in it, both forms, or too much */
export function checkShape(report: PlainReport): PlainReport {
  const names = Object.keys(report.metrics).length
  if (names > 0 && report.samples.length > 0) {
    throw new Unreadable('malformed', 'a report has either metrics or samples, not both')
  }
  if (names === 0 && report.samples.length === 0) throw new Unreadable('empty', 'neither metrics nor samples')
  if (report.samples.length === 0) {
    checkComponent(report.component, 'component')
    checkCount(names, 'metrics')
    return report
  }
  if (report.samples.length > MAX_SAMPLES) {
    throw new Unreadable('bad_value', `${report.samples.length} samples, at most ${MAX_SAMPLES} are taken`)
  }
  if (report.component !== '') checkComponent(report.component, 'component')
  report.samples.forEach((sample, index) => {
    checkSample(sample, report.component, index)
  })
  return report
}

function checkSample(sample: PlainSample, defaultComponent: string, index: number): void {
  const names = Object.keys(sample.metrics).length
  if (names === 0) throw new Unreadable('empty', `samples[${index}] has no metrics`)
  checkCount(names, `samples[${index}].metrics`)
  if (sample.component !== '') checkComponent(sample.component, `samples[${index}].component`)
  else if (defaultComponent === '') throw new Unreadable('bad_value', `samples[${index}] names no component`)
}

function checkCount(names: number, where: string): void {
  if (names > MAX_METRICS) throw new Unreadable('bad_value', `${where}: ${names} entries, at most ${MAX_METRICS}`)
}

function checkComponent(name: string, where: string): void {
  if (!isName(name)) throw new Unreadable('bad_value', `${where} must be a text of 1 to ${MAX_NAME_LENGTH} characters`)
}

/** @returns what was given @throws Unreadable for a name that no metric can have, and for a value that cannot be stored */
export function checkMetrics(metrics: Readonly<Record<string, unknown>>): PlainMetrics {
  for (const name in metrics) {
    checkMetricName(name)
    metricValue(metrics[name], name)
  }
  return metrics as PlainMetrics
}

/** @throws Unreadable for a name that no metric can have */
export function checkMetricName(name: string): void {
  // A map in JavaScript takes `__proto__` for something else, and the value would vanish on the way.
  if (!isName(name) || name === '__proto__') {
    throw new Unreadable('bad_value', `names of metrics must be texts of 1 to ${MAX_NAME_LENGTH} characters`)
  }
}

const isName = (name: string): boolean =>
  goodNames.has(name) || (name.length >= 1 && name.length <= MAX_NAME_LENGTH && isStorable(name) && remember(name))

/** The names of metrics and components come again with each report, and to look at each sign of them costs more. */
const goodNames = new Set<string>()
const MAX_GOOD_NAMES = 10_000

function remember(name: string): true {
  if (goodNames.size >= MAX_GOOD_NAMES) goodNames.clear()
  goodNames.add(name)
  return true
}

/** @throws Unreadable for a value that cannot be stored */
export function metricValue(value: unknown, name: string): PlainValue {
  switch (typeof value) {
    case 'number':
      if (Number.isFinite(value)) return value
      throw new Unreadable('bad_value', `metric ${quoted(name)} is not a finite number`)
    case 'boolean':
      return value
    case 'string':
      // No text is longer in UTF-8 than three bytes a unit: the exact count is for the few in between.
      if (value.length * 3 > MAX_TEXT_BYTES && Buffer.byteLength(value) > MAX_TEXT_BYTES) {
        throw new Unreadable('bad_value', `metric ${quoted(name)} is a text of more than ${MAX_TEXT_BYTES} bytes`)
      }
      if (isStorable(value)) return value
      throw new Unreadable('bad_value', `metric ${quoted(name)} holds a character that cannot be stored`)
    case 'undefined':
      throw new Unreadable('bad_value', `metric ${quoted(name)} has no value`)
    default:
      throw new Unreadable('bad_value', `metric ${quoted(name)} is neither a number, a boolean nor a text`)
  }
}

/** PostgreSQL stores neither NUL nor half of a surrogate pair. */
const isStorable = (text: string): boolean => !/[\0\p{Surrogate}]/u.test(text)

/** @throws Unreadable when it is no count that a double holds exactly: receipts are JSON, and name it as a number */
export function sequenceOf(value: number | bigint): bigint {
  if (value >= 0 && value <= Number.MAX_SAFE_INTEGER && (typeof value === 'bigint' || Number.isInteger(value))) {
    return BigInt(value)
  }
  throw new Unreadable('bad_value', 'sequence must be a whole number from 0 to 2^53 - 1')
}

/** From year 1 to year 9999, what both protobuf and PostgreSQL hold. @returns epoch milliseconds @throws Unreadable bad_timestamp */
export function instantOf(epochMs: number, where: string): number {
  if (epochMs >= EARLIEST_MS && epochMs <= LATEST_MS) return Math.floor(epochMs)
  throw new Unreadable('bad_timestamp', `${where} cannot be read, or is outside the years 1 to 9999`)
}

const EARLIEST_MS = Date.parse('0001-01-01T00:00:00Z')
const LATEST_MS = Date.parse('9999-12-31T23:59:59.999Z')

/** A name as a message quotes it. */
export const quoted = (name: string): string => JSON.stringify(name.slice(0, MAX_NAME_LENGTH))
