import { inspect } from 'node:util'
import fc from 'fast-check'
import { IngestRequest, type MetricValue } from './gen/ares/telemetry/v1/telemetry'
import { decodeIngestRequest, encodeIngestRequest } from './ingest-codec'
import { contractRequest, type PlainRequest, plainRequest } from './plain-telemetry'

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
const read = (bytes: Buffer): PlainRequest => plainRequest(IngestRequest.decode(bytes))

it('holds the same as the generated messages', () => {
  fc.assert(
    fc.property(request, (given) => {
      expect(contractRequest(plainRequest(given))).toEqual(given)
    }),
    { numRuns: 500 },
  )
})

it('writes what the generated code reads', () => {
  fc.assert(
    fc.property(request, (given) => {
      expect(IngestRequest.decode(encodeIngestRequest(plainRequest(given)))).toEqual(
        IngestRequest.decode(generated(given)),
      )
    }),
    { numRuns: 500 },
  )
})

it('reads what the generated code writes, and what it writes itself', () => {
  fc.assert(
    fc.property(request, (given) => {
      const expected = read(generated(given))
      expect(decodeIngestRequest(generated(given))).toEqual(expected)
      expect(decodeIngestRequest(encodeIngestRequest(plainRequest(given)))).toEqual(expected)
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
