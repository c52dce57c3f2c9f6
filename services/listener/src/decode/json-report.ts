import type { PlainMetrics, PlainReport, PlainSample } from '@ares/proto/plain-telemetry'
import { guarded, Unreadable } from './decoder'
import { parseJson } from './json-scan'
import { checkMetrics, checkShape, instantOf, sequenceOf } from './report-rules'

/**
 * The JSON report of the device guide: `{sequence?, component, timestamp?, metrics}`, or `samples` in place of `metrics`.
 * A timestamp is ISO 8601 with a time zone, or epoch milliseconds. `null` is no value, not a missing one.
 */
export const jsonReport = guarded((payload) => {
  const body = object(parseJson(payload), 'the payload')
  return checkShape({
    sequence: body.sequence === undefined ? undefined : sequenceOf(number(body.sequence, 'sequence')),
    component: component(body.component, 'component'),
    timestamp: timestamp(body.timestamp, 'timestamp'),
    metrics: body.metrics === undefined ? {} : metrics(body.metrics, 'metrics'),
    samples: body.samples === undefined ? [] : samples(body.samples),
  } satisfies PlainReport)
})

function samples(value: unknown): PlainSample[] {
  if (!Array.isArray(value)) throw new Unreadable('malformed', 'samples must be an array')
  return value.map((item, index) => {
    const where = `samples[${index}]`
    const sample = object(item, where)
    return {
      component: component(sample.component, `${where}.component`),
      timestamp: timestamp(sample.timestamp, `${where}.timestamp`),
      metrics: sample.metrics === undefined ? {} : metrics(sample.metrics, `${where}.metrics`),
    }
  })
}

/** The object that was parsed is the answer: nothing of it is copied. */
const metrics = (value: unknown, where: string): PlainMetrics => checkMetrics(object(value, where))

function component(value: unknown, where: string): string {
  if (value === undefined) return ''
  if (typeof value !== 'string' || value === '') throw new Unreadable('bad_value', `${where} must be a text`)
  return value
}

function timestamp(value: unknown, where: string): number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'number') return instantOf(value, where)
  if (typeof value === 'string') return instantOf(epochOfIso(value), where)
  throw new Unreadable('bad_timestamp', `${where} must be ISO 8601 or epoch milliseconds`)
}

// Without a zone the text would mean another instant on every machine.
const ISO_8601 =
  /^(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/

/**
 * What a library writes, `2025-12-08T09:00:00.000Z`, is read digit by digit: a regular expression costs five times as much.
 * Every other form goes the long way.
 */
function epochOfIso(text: string): number {
  const short = epochOfShortIso(text)
  return Number.isNaN(short) ? epochOfAnyIso(text) : short
}

/** The day of the last instant: reports come in order, more or less. */
let lastDay = { text: '', epochMs: Number.NaN }

function epochOfShortIso(text: string): number {
  if (text.length !== 24 || text[10] !== 'T' || text[13] !== ':' || text[16] !== ':' || text[19] !== '.')
    return Number.NaN
  if (text[23] !== 'Z') return Number.NaN
  const hour = digits(text, 11, 2)
  const minute = digits(text, 14, 2)
  const second = digits(text, 17, 2)
  if (!(hour <= 23 && minute <= 59 && second <= 59)) return Number.NaN
  const day = text.slice(0, 10)
  if (day !== lastDay.text) lastDay = { text: day, epochMs: epochOfAnyIso(`${day}T00:00:00Z`) }
  return lastDay.epochMs + ((hour * 60 + minute) * 60 + second) * 1_000 + digits(text, 20, 3)
}

function digits(text: string, start: number, count: number): number {
  let value = 0
  for (let at = start; at < start + count; at++) {
    const digit = text.charCodeAt(at) - 48
    if (digit < 0 || digit > 9) return Number.NaN
    value = value * 10 + digit
  }
  return value
}

function epochOfAnyIso(text: string): number {
  const parts = ISO_8601.exec(text)
  if (!parts) return Number.NaN
  const [, year, month, day, hour, minute, second = '0', fraction = '0', sign, zoneHour = '0', zoneMinute = '0'] = parts
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return Number.NaN
  if (Number(zoneHour) > 23 || Number(zoneMinute) > 59) return Number.NaN
  const date = new Date(0)
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day))
  // JavaScript takes 30 February for 2 March.
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return Number.NaN
  const zoneMinutes = (Number(zoneHour) * 60 + Number(zoneMinute)) * (sign === '-' ? -1 : 1)
  const milliseconds = Number(fraction.padEnd(3, '0').slice(0, 3))
  return (
    date.getTime() + ((Number(hour) * 60 + Number(minute) - zoneMinutes) * 60 + Number(second)) * 1_000 + milliseconds
  )
}

function number(value: unknown, where: string): number {
  if (typeof value === 'number') return value
  throw new Unreadable('bad_value', `${where} must be a number`)
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new Unreadable('malformed', `${where} must be an object`)
}
