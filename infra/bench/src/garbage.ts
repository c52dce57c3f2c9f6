import type { SentReport } from './report-source'

/** One way to be wrong, and the reason that its dead letter must have. */
export interface Garbage {
  readonly kind: string
  readonly reason: string
  /** Latin-1, a byte a character. */
  spoil(report: SentReport): string
}

/** A good report with one thing in it replaced. */
const withMetrics = (metrics: string) => (report: SentReport) =>
  report.payload.replace(/"metrics":\{.*\}\}$/, `"metrics":${metrics}}`)
const withTimestamp = (timestamp: string) => (report: SentReport) =>
  report.payload.replace(/"timestamp":"[^"]*"/, `"timestamp":${timestamp}`)
const always = (payload: string) => () => payload

const NESTED = `${'['.repeat(20)}${']'.repeat(20)}`

export const GARBAGE: readonly Garbage[] = [
  { kind: 'no bytes at all', reason: 'empty', spoil: always('') },
  { kind: 'no JSON', reason: 'malformed', spoil: always('temperature=21.5') },
  { kind: 'cut off', reason: 'malformed', spoil: (report) => report.payload.slice(0, -10) },
  { kind: 'two reports in one', reason: 'malformed', spoil: (report) => `${report.payload}${report.payload}` },
  { kind: 'an array', reason: 'malformed', spoil: (report) => `[${report.payload}]` },
  { kind: 'a number', reason: 'malformed', spoil: always('42') },
  { kind: 'bytes that are no UTF-8', reason: 'malformed', spoil: always('{"component":"\xff\xfe"}') },
  { kind: 'NaN', reason: 'malformed', spoil: withMetrics('{"temperature":NaN}') },
  { kind: 'nested 20 deep', reason: 'too_deep', spoil: withMetrics(`{"temperature":${NESTED}}`) },
  { kind: 'a key twice', reason: 'duplicate_key', spoil: withMetrics('{"temperature":1,"temperature":2}') },
  { kind: 'no metric', reason: 'empty', spoil: withMetrics('{}') },
  { kind: 'null for a value', reason: 'bad_value', spoil: withMetrics('{"temperature":null}') },
  { kind: 'an object for a value', reason: 'bad_value', spoil: withMetrics('{"temperature":{"value":1}}') },
  { kind: 'more than a double holds', reason: 'bad_value', spoil: withMetrics('{"temperature":1e999}') },
  { kind: 'a NUL in a text', reason: 'bad_value', spoil: withMetrics('{"temperature":"a\\u0000b"}') },
  { kind: 'a word for an instant', reason: 'bad_timestamp', spoil: withTimestamp('"yesterday"') },
  { kind: 'the year 2100', reason: 'too_far_ahead', spoil: withTimestamp('"2100-01-01T00:00:00.000Z"') },
  { kind: 'the year 1990', reason: 'too_old', spoil: withTimestamp('"1990-01-01T00:00:00.000Z"') },
  { kind: 'a metric that nobody knows', reason: 'unknown_metric', spoil: withMetrics('{"happiness":11}') },
  { kind: 'a text for a number', reason: 'wrong_type', spoil: withMetrics('{"temperature":"warm"}') },
]
