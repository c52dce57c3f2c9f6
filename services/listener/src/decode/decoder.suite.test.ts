import { contractReport } from '@ares/proto/plain-telemetry'
import { MetricValue, Report } from '@ares/proto/telemetry/v1/telemetry'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import * as fc from 'fast-check'
import { type Decoder, MAX_PAYLOAD_BYTES } from './decoder'
import { decode } from './formats'
import { jsonReport } from './json-report'
import { protobufReport } from './protobuf-report'
import { senml } from './senml'

const RECEIVED_AT = Date.parse('2026-01-02T03:04:05.678Z')
const AT = new Date('2025-12-08T09:00:00.000Z')

/** One measurement, as every format can say it. */
interface Measurement {
  readonly component: string
  readonly at?: Date
  readonly metrics: Readonly<Record<string, number | boolean | string>>
}

const text = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
const number = (value: number): MetricValue => ({ value: { $case: 'number', value } })

function protobufMetrics(metrics: Measurement['metrics']): Record<string, MetricValue> {
  const written = (value: number | boolean | string): MetricValue => {
    if (typeof value === 'number') return number(value)
    return typeof value === 'boolean' ? { value: { $case: 'flag', value } } : { value: { $case: 'text', value } }
  }
  return Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, written(value)]))
}

const formats: Array<{ name: string; decoder: Decoder; write: (measurements: Measurement[]) => Buffer }> = [
  {
    name: 'JSON',
    decoder: jsonReport,
    write: ([first, ...more]) => {
      const sample = ({ component, at, metrics }: Measurement) => ({ component, timestamp: at?.toISOString(), metrics })
      return more.length === 0 && first ? text(sample(first)) : text({ samples: [first!, ...more].map(sample) })
    },
  },
  {
    name: 'SenML',
    decoder: senml,
    write: (measurements) =>
      text(
        measurements.flatMap(({ component, at, metrics }) =>
          Object.entries(metrics).map(([name, value]) => ({
            n: `${component}:${name}`,
            t: at ? at.getTime() / 1_000 : undefined,
            [typeof value === 'number' ? 'v' : typeof value === 'boolean' ? 'vb' : 'vs']: value,
          })),
        ),
      ),
  },
  {
    name: 'protobuf',
    decoder: protobufReport,
    write: (measurements) => {
      const samples = measurements.map(({ component, at, metrics }) => ({
        component,
        timestamp: at,
        metrics: protobufMetrics(metrics),
      }))
      const report = samples.length === 1 ? { ...samples[0]!, samples: [] } : { component: '', metrics: {}, samples }
      return Buffer.from(Report.encode(report).finish())
    },
  },
]

const reasonOf = (decoder: Decoder, payload: Buffer): string => {
  const decoded = decoder.decode(payload, RECEIVED_AT)
  return decoded.$case === 'undecodable' ? decoded.value.reason : 'report'
}

describe.each(formats)('the $name decoder', ({ decoder, write }) => {
  it('reads numbers, booleans and texts of one component', () => {
    const metrics = { temperature: 25.5, heater_on: true, mode: 'eco ünï' }
    const decoded = decoder.decode(write([{ component: 'dht22-1', at: AT, metrics }]), RECEIVED_AT)
    expect(decoded).toEqual({
      $case: 'report',
      value: {
        sequence: undefined,
        component: 'dht22-1',
        timestamp: AT.getTime(),
        metrics,
        samples: [],
      },
    })
  })

  it('reads several samples', () => {
    const later = new Date(AT.getTime() + 1_500)
    const decoded = decoder.decode(
      write([
        { component: 'a', at: AT, metrics: { t: 1 } },
        { component: 'b', at: later, metrics: { t: 2 } },
      ]),
      RECEIVED_AT,
    )
    expect(decoded).toMatchObject({
      $case: 'report',
      value: {
        samples: [
          { component: 'a', timestamp: AT.getTime(), metrics: { t: 1 } },
          { component: 'b', timestamp: later.getTime(), metrics: { t: 2 } },
        ],
      },
    })
  })

  it('leaves the instant unset when the device does not say it', () => {
    const decoded = decoder.decode(write([{ component: 'a', metrics: { t: 1 } }]), RECEIVED_AT)
    expect(decoded.$case === 'report' && decoded.value.timestamp).toBeUndefined()
  })

  it('gives what it read in a form that the contract can carry', () => {
    const decoded = decoder.decode(write([{ component: 'a', at: AT, metrics: { t: 1 } }]), RECEIVED_AT)
    const report = decoded.$case === 'report' ? contractReport(decoded.value) : undefined
    expect(Report.decode(Report.encode(report!).finish())).toEqual(report)
  })

  it('says why there is no report', () => {
    expect(reasonOf(decoder, Buffer.alloc(0))).toBe('empty')
    expect(reasonOf(decoder, Buffer.alloc(MAX_PAYLOAD_BYTES + 1, 0x20))).toBe('too_large')
    expect(reasonOf(decoder, Buffer.from('%%% no format %%%'))).toBe('malformed')
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: { t: 'x'.repeat(1_025) } }]))).toBe('bad_value')
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: { t: 'nul \0' } }]))).toBe('bad_value')
    expect(reasonOf(decoder, write([{ component: 'a'.repeat(65), at: AT, metrics: { t: 1 } }]))).toBe('bad_value')
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: { ['m'.repeat(65)]: 1 } }]))).toBe('bad_value')
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`m${index}`, index]))
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: many }]))).toBe('bad_value')
    const samples = Array.from({ length: 1_001 }, (_, index) => ({ component: `c${index}`, at: AT, metrics: { t: 1 } }))
    expect(reasonOf(decoder, write(samples))).toBe('bad_value')
  })

  it('takes a text of exactly 1 KiB, counted in bytes', () => {
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: { t: 'ü'.repeat(512) } }]))).toBe('report')
    expect(reasonOf(decoder, write([{ component: 'a', at: AT, metrics: { t: 'ü'.repeat(513) } }]))).toBe('bad_value')
  })

  it('never throws and always answers, whatever the bytes are', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), damaged(write)), (bytes) => {
        const { $case, value } = decoder.decode(Buffer.from(bytes), RECEIVED_AT)
        if ($case === 'undecodable') return value.reason !== '' && value.detail.length <= 256
        // What is let through must not fail on its way to api.
        return Report.decode(Report.encode(contractReport(value)).finish()) !== undefined
      }),
      { numRuns: 25_000 },
    )
  })
})

/** A good payload, then some of its bytes changed, cut or doubled. */
function damaged(write: (measurements: Measurement[]) => Buffer): fc.Arbitrary<Uint8Array> {
  const value = fc.oneof(fc.double(), fc.boolean(), fc.string({ maxLength: 20 }))
  const measurement = fc.record({
    component: fc.string({ maxLength: 10 }),
    at: fc.option(fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }), { nil: undefined }),
    metrics: fc.dictionary(fc.string({ maxLength: 8 }), value, { maxKeys: 4 }),
  })
  return fc
    .record({
      measurements: fc.array(measurement, { minLength: 1, maxLength: 3 }),
      changes: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
      cut: fc.option(fc.nat(), { nil: undefined, freq: 4 }),
    })
    .map(({ measurements, changes, cut }) => {
      const bytes = write(measurements)
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte
      return cut === undefined || bytes.length === 0 ? bytes : bytes.subarray(0, cut % bytes.length)
    })
}

describe('JSON of a stranger', () => {
  const json = (source: string): string => reasonOf(jsonReport, Buffer.from(source))
  const withMetrics = (metrics: string, rest = ''): string => json(`{"component":"a"${rest},"metrics":${metrics}}`)

  it.each([
    ['{"t":1,"t":2}', 'duplicate_key'],
    ['{"t":1,"\\u0074":2}', 'duplicate_key'],
    ['{"t":NaN}', 'malformed'],
    ['{"t":Infinity}', 'malformed'],
    ['{"t":1e999}', 'bad_value'],
    ['{"t":null}', 'bad_value'],
    ['{"t":{"deep":1}}', 'bad_value'],
    ['{"":1}', 'bad_value'],
    ['{"__proto__":1}', 'bad_value'],
    ['{"t":"\\ud800"}', 'bad_value'],
    ['{"t":"a \\" : { [ \\\\"}', 'report'],
    ['{}', 'empty'],
    ['[]', 'malformed'],
    ['{"t":1}}', 'malformed'],
  ])('answers metrics %s with %s', (metrics, reason) => {
    expect(withMetrics(metrics)).toBe(reason)
  })

  it('finds a key twice at any depth, also where it does not look otherwise', () => {
    expect(withMetrics('{"t":1}', ',"extra":{"a":[{"b":1,"b":1}]}')).toBe('duplicate_key')
    expect(withMetrics('{"t":1}', ',"extra":{"a":[{"b":1},{"b":1}],"c":": \\":"}')).toBe('report')
  })

  it('refuses deep nesting before it is built', () => {
    expect(withMetrics('{"t":1}', `,"extra":${'['.repeat(100_000)}`)).toBe('too_deep')
    expect(withMetrics('{"t":1}', `,"extra":${'['.repeat(7)}${']'.repeat(7)}`)).toBe('report')
  })

  it('refuses bytes that are not UTF-8', () => {
    expect(
      reasonOf(jsonReport, Buffer.from([...Buffer.from('{"component":"a","metrics":{"t":"'), 0xff, 0x22, 0x7d, 0x7d])),
    ).toBe('malformed')
  })

  it.each([
    ['"2025-12-08T09:00:00.000Z"', '2025-12-08T09:00:00.000Z'],
    ['"2025-12-08T09:00:00.1234567Z"', '2025-12-08T09:00:00.123Z'],
    ['"2025-12-08T10:30:00+01:30"', '2025-12-08T09:00:00.000Z'],
    ['"2025-12-08T09:00Z"', '2025-12-08T09:00:00.000Z'],
    ['1765184400000', '2025-12-08T09:00:00.000Z'],
    ['1765184400000.9', '2025-12-08T09:00:00.000Z'],
    ['0', '1970-01-01T00:00:00.000Z'],
  ])('reads the timestamp %s', (written, iso) => {
    const payload = Buffer.from(`{"component":"a","timestamp":${written},"metrics":{"t":1}}`)
    const decoded = jsonReport.decode(payload, RECEIVED_AT)
    expect(decoded.$case === 'report' && new Date(decoded.value.timestamp ?? Number.NaN).toISOString()).toBe(iso)
  })

  it.each([
    '"2025-12-08T09:00:00"',
    '"2025-02-30T09:00:00Z"',
    '"yesterday"',
    '""',
    '1e300',
    '-1e15',
    'null',
    'true',
    '"2025-12-08T25:00:00Z"',
  ])('cannot read the timestamp %s', (written) => {
    expect(withMetrics('{"t":1}', `,"timestamp":${written}`)).toBe('bad_timestamp')
  })

  it.each(['-1', '1.5', '9007199254740992', '"7"', 'null'])('does not take the sequence %s', (written) => {
    expect(withMetrics('{"t":1}', `,"sequence":${written}`)).toBe('bad_value')
  })

  it('never tells the payload in the detail', () => {
    const decoded = jsonReport.decode(Buffer.from('{"password":"hunter2",'), RECEIVED_AT)
    expect(JSON.stringify(decoded)).not.toContain('hunter2')
  })

  it('counts members as JSON.parse does, for any JSON without equal keys', () => {
    const metrics = fc.dictionary(
      fc.string({ minLength: 1, maxLength: 8 }),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      {
        minKeys: 1,
        maxKeys: 5,
        noNullPrototype: true,
      },
    )
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 3 }), metrics, (extra, values) => {
        const reason = json(JSON.stringify({ component: 'a', extra, metrics: values }))
        return reason !== 'duplicate_key' && reason !== 'malformed'
      }),
      { numRuns: 25_000 },
    )
  })
})

describe('SenML', () => {
  const pack = (records: unknown[]) => senml.decode(text(records), RECEIVED_AT)
  const reason = (records: unknown[]) => reasonOf(senml, text(records))

  it('resolves base name, time, value and sum (RFC 8428 section 4.6)', () => {
    const decoded = pack([
      {
        bn: 'urn:dev:ow:10e2073a01080063:',
        bt: 1_765_184_400,
        bu: 'Cel',
        bv: 20,
        bs: 100,
        bver: 10,
        n: 'temp',
        v: 1.5,
      },
      { n: 'energy', s: 5, v: 0 },
      { n: 'temp', t: 60, v: -1 },
    ])
    expect(decoded).toMatchObject({
      $case: 'report',
      value: {
        samples: [
          {
            component: 'urn:dev:ow:10e2073a01080063',
            timestamp: Date.parse('2025-12-08T09:00:00Z'),
            metrics: { temp: 21.5, energy: 20, energy_sum: 105 },
          },
          { timestamp: Date.parse('2025-12-08T09:01:00Z'), metrics: { temp: 19 } },
        ],
      },
    })
  })

  it('counts times below 2^28 seconds from the receipt', () => {
    const decoded = pack([{ n: 'a:t', t: -5, v: 1 }])
    expect(decoded.$case === 'report' && decoded.value.timestamp).toBe(RECEIVED_AT - 5_000)
  })

  it('takes a record of base fields alone as a setting for the others', () => {
    expect(
      pack([
        { bn: 'a:', bt: 1_765_184_400 },
        { n: 't', v: 1 },
      ]),
    ).toMatchObject({
      $case: 'report',
      value: { component: 'a', timestamp: AT.getTime(), metrics: { t: 1 } },
    })
  })

  it.each([
    [[], 'empty'],
    [
      [
        { n: 'a:t', v: 1 },
        { n: 'a:t', v: 2 },
      ],
      'duplicate_key',
    ],
    [[{ n: 'a:t', v: 1, vb: true }], 'malformed'],
    [[{ n: 'a:t' }], 'malformed'],
    [[{ n: 'a:t', v: 1, must_: 1 }], 'malformed'],
    [[{ n: 'a:t', v: 1, bver: 11 }], 'malformed'],
    [[{ n: 'a:t', vd: 'AAAA' }], 'bad_value'],
    [[{ n: 'temperature', v: 1 }], 'bad_value'],
    [[{ n: 'a:', v: 1 }], 'bad_value'],
    [[{ n: 'a b:t', v: 1 }], 'bad_value'],
    [[{ n: 'a:t', v: '1' }], 'bad_value'],
    [[{ n: 'a:t', v: 1, t: 'now' }], 'bad_timestamp'],
    [[{ n: 'a:t', v: 1, t: 1e300 }], 'bad_timestamp'],
    [[{ n: 'a:t', v: 1, u: 'Cel', ut: 60, unknown: 1 }], 'report'],
    [[null], 'malformed'],
  ])('answers %j with %s', (records, expected) => {
    expect(reason(records)).toBe(expected)
  })
})

describe('protobuf of a stranger', () => {
  const encoded = (report: Partial<Report>): Buffer =>
    Buffer.from(
      Report.encode(Report.fromPartial({ component: 'a', metrics: { t: number(1) }, ...report } as Report)).finish(),
    )

  it('refuses what is no finite number, no value, or a name of JavaScript', () => {
    expect(reasonOf(protobufReport, encoded({ metrics: { t: number(Number.NaN) } }))).toBe('bad_value')
    expect(reasonOf(protobufReport, encoded({ metrics: { t: { value: undefined } } }))).toBe('bad_value')
    const value = MetricValue.encode(number(1)).finish()
    const entry = new BinaryWriter().uint32(10).string('__proto__').uint32(18).bytes(value).finish()
    const payload = Buffer.concat([encoded({}), new BinaryWriter().uint32(34).bytes(entry).finish()])
    expect(reasonOf(protobufReport, payload)).toBe('bad_value')
  })

  it('refuses a sequence that a receipt could not name', () => {
    expect(reasonOf(protobufReport, encoded({ sequence: 2n ** 53n }))).toBe('bad_value')
    expect(reasonOf(protobufReport, encoded({ sequence: 2n ** 53n - 1n }))).toBe('report')
  })

  it('refuses an instant outside of the calendar', () => {
    const timestamp = new BinaryWriter()
      .uint32(8)
      .int64(2n ** 60n)
      .finish()
    const payload = Buffer.concat([encoded({}), new BinaryWriter().uint32(26).bytes(timestamp).finish()])
    expect(reasonOf(protobufReport, payload)).toBe('bad_timestamp')
  })

  it('refuses bytes behind the end of the message', () => {
    expect(reasonOf(protobufReport, Buffer.concat([encoded({}), Buffer.from([0, 1, 2])]))).toBe('malformed')
  })

  it('ends at groups within groups', () => {
    expect(reasonOf(protobufReport, Buffer.alloc(MAX_PAYLOAD_BYTES, 0x0b))).toBe('malformed')
  })
})

describe('the format of a message', () => {
  const payload = text({ component: 'a', metrics: { t: 1 } })
  const pack = text([{ n: 'a:t', v: 1 }])
  const kind = (bytes: Buffer, hint: Parameters<typeof decode>[1]) => decode(bytes, hint, RECEIVED_AT)

  it('is JSON when nothing is said', () => {
    expect(kind(payload, {}).$case).toBe('report')
    expect(kind(payload, { contentType: '' }).$case).toBe('report')
  })

  it('is what the content type says, parameters left aside', () => {
    expect(kind(pack, { contentType: 'Application/SenML+JSON; charset=utf-8' }).$case).toBe('report')
    expect(kind(payload, { contentType: 'application/senml+json' }).$case).toBe('undecodable')
  })

  it('is what the topic says, whatever the content type', () => {
    expect(kind(pack, { suffix: 'senml', contentType: 'application/json' }).$case).toBe('report')
  })

  it.each([{ suffix: 'cbor' }, { contentType: 'text/plain' }, { suffix: '__proto__' }])(
    'is unsupported for %j',
    (hint) => {
      expect(kind(payload, hint)).toMatchObject({ value: { reason: 'unsupported_format' } })
    },
  )
})
