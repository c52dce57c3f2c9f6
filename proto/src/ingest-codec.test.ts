import { inspect } from 'node:util'
import fc from 'fast-check'
import { IngestRequest, type MetricValue } from './gen/ares/telemetry/v1/telemetry'
import { decodeIngestRequest, MessageEncoder } from './ingest-codec'
import { type EncodedMessage, joinIngestRequest } from './ingest-encoder'
import { contractMessage, type PlainMessage, type PlainRequest, plainRequest } from './plain-telemetry'

const text = fc.string({ unit: 'binary', maxLength: 200 }).filter((given) => !/\p{Surrogate}/u.test(given))
const name = fc.oneof(text, fc.constantFrom('temperature', '__proto__', 'constructor', 'température'))
const value = fc.oneof(
  fc.double().map((number): MetricValue => ({ value: { $case: 'number', value: number } })),
  fc.boolean().map((flag): MetricValue => ({ value: { $case: 'flag', value: flag } })),
  text.map((given): MetricValue => ({ value: { $case: 'text', value: given } })),
  fc.constant<MetricValue>({ value: undefined }),
)
const metrics = fc.dictionary(name, value, { maxKeys: 6, noNullPrototype: true })
// The generated code reads what lies before 1970 to the second only, and has 2^53 for the largest one.
const instant = fc.option(fc.date({ min: new Date('1970-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }), {
  nil: undefined,
})
const sample = fc.record({ component: text, timestamp: instant, metrics })
const report = fc.record({
  sequence: fc.option(fc.bigInt(0n, 2n ** 64n - 1n), { nil: undefined }),
  component: text,
  timestamp: instant,
  metrics,
  samples: fc.array(sample, { maxLength: 3 }),
})
const content = fc.oneof(
  report.map((given) => ({ $case: 'report' as const, value: given })),
  fc.record({ reason: text, detail: text }).map((given) => ({ $case: 'undecodable' as const, value: given })),
  fc.constant(undefined),
)
const payload = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))
const message = fc.record({ deviceId: text, receivedAt: instant, payload, content, topic: text })
const request = fc.record({ batchId: text, listener: text, messages: fc.array(message, { maxLength: 5 }) })

const generated = (given: IngestRequest): Buffer => Buffer.from(IngestRequest.encode(given).finish())

// One for all cases: chunks are begun and ended in the middle of them.
const encoder = new MessageEncoder()
const written = ({ messages, ...rest }: PlainRequest): Buffer =>
  joinIngestRequest({ ...rest, messages: messages.map((one) => encoder.encode(one)) })
const read = (bytes: Buffer): PlainRequest => plainRequest(IngestRequest.decode(bytes))

it('holds the same as the generated messages', () => {
  fc.assert(
    fc.property(request, (given) => {
      expect(plainRequest(given).messages.map(contractMessage)).toEqual(given.messages)
    }),
    { numRuns: 500 },
  )
})

it('writes what the generated code reads', () => {
  fc.assert(
    fc.property(request, (given) => {
      expect(IngestRequest.decode(written(plainRequest(given)))).toEqual(IngestRequest.decode(generated(given)))
    }),
    { numRuns: 500 },
  )
})

it('reads what the generated code writes, and what it writes itself', () => {
  fc.assert(
    fc.property(request, (given) => {
      const expected = read(generated(given))
      expect(decodeIngestRequest(generated(given))).toEqual(expected)
      expect(decodeIngestRequest(written(plainRequest(given)))).toEqual(expected)
    }),
    { numRuns: 500 },
  )
})

it('answers to broken bytes as the generated code does', () => {
  const outcome = (decode: (bytes: Buffer) => PlainRequest, bytes: Buffer): unknown => {
    try {
      return decode(bytes)
    } catch {
      return 'refused'
    }
  }
  const broken = fc.tuple(
    request,
    fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
    fc.nat(),
  )
  fc.assert(
    fc.property(broken, ([given, changes, cut]) => {
      const bytes = generated(given)
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte
      const part = bytes.subarray(0, bytes.length - (cut % 3))
      // As text: an instant that cannot be read does not equal itself.
      const shown = (decode: (bytes: Buffer) => PlainRequest) => inspect(outcome(decode, part), { depth: 9 })
      expect(shown(decodeIngestRequest)).toBe(shown(read))
    }),
    { numRuns: 1_000, endOnFailure: true },
  )
})

describe('messages that are encoded when they come', () => {
  const message = (deviceId: string, payload = Buffer.alloc(0)): PlainMessage => ({
    deviceId,
    receivedAt: 1_700_000_000_000,
    payload,
    content: undefined,
    topic: '',
  })
  const joined = (messages: Parameters<typeof joinIngestRequest>[0]['messages']): string[] =>
    decodeIngestRequest(joinIngestRequest({ batchId: 'b', listener: 'l', messages })).messages.map(
      (one) => one.deviceId,
    )

  it('are joined in the order of the request, whatever the order they were encoded in', () => {
    const own = new MessageEncoder()
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => own.encode(message(id))) as [
      EncodedMessage,
      EncodedMessage,
      EncodedMessage,
      EncodedMessage,
    ]
    expect(joined([a, b, c, d])).toEqual(['a', 'b', 'c', 'd'])
    expect(joined([d, b, c, a])).toEqual(['d', 'b', 'c', 'a'])
    expect(joined([b])).toEqual(['b'])
    expect(joined([a, a])).toEqual(['a', 'a'])
  })

  it('go to the next chunk whole, and stay what they are when later ones are encoded', () => {
    const own = new MessageEncoder()
    const payload = Buffer.alloc(50_000, 0x61)
    const encoded = Array.from({ length: 9 }, (_, n) => own.encode(message(`device-${n}`, payload)))
    expect(new Set(encoded.map(({ chunk }) => chunk)).size).toBeGreaterThan(1)
    expect(joined(encoded)).toEqual(Array.from({ length: 9 }, (_, n) => `device-${n}`))
  })

  it('may be larger than a chunk', () => {
    const own = new MessageEncoder()
    const payload = Buffer.alloc(256 * 1024, 0x62)
    const one = { ...message('large', payload), topic: 'ares4/large/telemetry' }
    const request = joinIngestRequest({ batchId: '', listener: '', messages: [own.encode(one)] })
    expect(decodeIngestRequest(request).messages).toEqual([one])
  })
})
