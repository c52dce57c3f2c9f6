import {
  type CallOptions,
  type Client,
  type ClientUnaryCall,
  type handleUnaryCall,
  type Metadata,
  type MethodDefinition,
  makeGenericClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js'
import {
  IngestRequest,
  type IngestResponse,
  type TelemetryServiceClient,
  type TelemetryServiceServer,
  TelemetryServiceService,
} from './gen/ares/telemetry/v1/telemetry'
import {
  contractRequest,
  type PlainMessage,
  type PlainMetrics,
  type PlainReport,
  type PlainRequest,
  type PlainSample,
  type PlainValue,
  plainRequest,
} from './plain-telemetry'

/**
 * IngestRequest on the wire, for the one call where it counts: ten thousand reports a second go through it. The bytes are
 * those of the contract, any protobuf library reads them; only how they are made and read is by hand, in one buffer and
 * without an object for each nested message and value. That takes half of the generated code's time to write and a third
 * to read, and leaves less garbage.
 *
 * Whatever is unusual (an instant before 1970, a field that we do not know) is left to the generated code, which is right
 * in all cases; `ingest-codec.test.ts` holds both against each other.
 */
export function encodeIngestRequest(request: PlainRequest): Buffer {
  try {
    return new Writer(sizeHint(request)).request(request)
  } catch (error) {
    if (error !== UNUSUAL) throw error
    return Buffer.from(IngestRequest.encode(contractRequest(request)).finish())
  }
}

/** @throws Error for bytes that are no IngestRequest */
export function decodeIngestRequest(bytes: Buffer): PlainRequest {
  try {
    return new Reader(bytes).request()
  } catch (error) {
    if (error !== UNUSUAL) throw error
    return plainRequest(IngestRequest.decode(bytes))
  }
}

/** TelemetryService with this codec. For the server. */
export const telemetryService = {
  ...TelemetryServiceService,
  ingest: {
    ...TelemetryServiceService.ingest,
    requestSerialize: encodeIngestRequest,
    requestDeserialize: decodeIngestRequest,
  } satisfies MethodDefinition<PlainRequest, IngestResponse>,
}

/** What serves it. */
export interface PlainTelemetryServer extends Omit<TelemetryServiceServer, 'ingest'> {
  ingest: handleUnaryCall<PlainRequest, IngestResponse>
}

/** TelemetryServiceClient with this codec. */
export const IngestClient = makeGenericClientConstructor(
  telemetryService,
  'ares.telemetry.v1.TelemetryService',
) as unknown as new (
  ...options: ConstructorParameters<typeof Client>
) => IngestClient

export interface IngestClient extends Client {
  readonly reportLoad: TelemetryServiceClient['reportLoad']
  ingest(
    request: PlainRequest,
    metadata: Metadata,
    options: Partial<CallOptions>,
    callback: (error: ServiceError | null, response: IngestResponse) => void,
  ): ClientUnaryCall
}

/** Thrown where the generated code has to take over; one object, because it is no error. */
const UNUSUAL = Symbol('unusual')

function sizeHint({ messages }: PlainRequest): number {
  let size = 1_024
  for (const { payload, topic } of messages) size += payload.length * 2 + topic.length + 256
  return size
}

// Tags: field number << 3 | wire type (0 varint, 1 eight bytes, 2 length-delimited).
const TAG = {
  request: { batchId: 10, listener: 18, messages: 26 },
  message: { deviceId: 10, receivedAt: 18, payload: 26, report: 34, undecodable: 42, topic: 50 },
  report: { sequence: 8, component: 18, timestamp: 26, metrics: 34, samples: 42 },
  sample: { component: 10, timestamp: 18, metrics: 26 },
  entry: { key: 10, value: 18 },
  value: { number: 9, flag: 16, text: 26 },
  undecodable: { reason: 10, detail: 18 },
  timestamp: { seconds: 8, nanos: 16 },
} as const

/** Room for the length of something whose size is not known yet: a varint of four bytes, the first three with more to come. */
const LENGTH_BYTES = 4

class Writer {
  private bytes: Buffer
  private at = 0

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafe(size)
  }

  request({ batchId, listener, messages }: PlainRequest): Buffer {
    this.text(TAG.request.batchId, batchId)
    this.text(TAG.request.listener, listener)
    for (const message of messages) this.message(message)
    return this.bytes.subarray(0, this.at)
  }

  private message({ deviceId, receivedAt, payload, content, topic }: PlainMessage): void {
    const start = this.open(TAG.request.messages)
    this.text(TAG.message.deviceId, deviceId)
    this.instant(TAG.message.receivedAt, receivedAt)
    if (payload.length > 0) {
      this.need(payload.length + 8)
      this.varint(TAG.message.payload)
      this.varint(payload.length)
      this.bytes.set(payload, this.at)
      this.at += payload.length
    }
    if (content?.$case === 'report') this.report(content.value)
    else if (content) {
      const inner = this.open(TAG.message.undecodable)
      this.text(TAG.undecodable.reason, content.value.reason)
      this.text(TAG.undecodable.detail, content.value.detail)
      this.close(inner)
    }
    this.text(TAG.message.topic, topic)
    this.close(start)
  }

  private report({ sequence, component, timestamp, metrics, samples }: PlainReport): void {
    const start = this.open(TAG.message.report)
    if (sequence !== undefined) {
      const count = Number(sequence)
      if (!Number.isSafeInteger(count) || count < 0) throw UNUSUAL
      this.need(12)
      this.varint(TAG.report.sequence)
      this.varint(count)
    }
    this.text(TAG.report.component, component)
    this.instant(TAG.report.timestamp, timestamp)
    this.metrics(TAG.report.metrics, metrics)
    for (const sample of samples) this.sample(sample)
    this.close(start)
  }

  private sample({ component, timestamp, metrics }: PlainSample): void {
    const start = this.open(TAG.report.samples)
    this.text(TAG.sample.component, component)
    this.instant(TAG.sample.timestamp, timestamp)
    this.metrics(TAG.sample.metrics, metrics)
    this.close(start)
  }

  private metrics(tag: number, metrics: PlainMetrics): void {
    for (const name in metrics) {
      const value = metrics[name]
      const start = this.open(tag)
      this.text(TAG.entry.key, name)
      switch (typeof value) {
        case 'number':
          this.need(16)
          this.bytes[this.at++] = TAG.entry.value
          this.bytes[this.at++] = 9
          this.bytes[this.at++] = TAG.value.number
          this.at = this.bytes.writeDoubleLE(value, this.at)
          break
        case 'boolean':
          this.need(8)
          this.bytes[this.at++] = TAG.entry.value
          this.bytes[this.at++] = 2
          this.bytes[this.at++] = TAG.value.flag
          this.bytes[this.at++] = value ? 1 : 0
          break
        case 'string': {
          const inner = this.open(TAG.entry.value)
          // Also when it is empty: it is the case that counts.
          this.textAlways(TAG.value.text, value)
          this.close(inner)
          break
        }
        default:
          throw UNUSUAL
      }
      this.close(start)
    }
  }

  private instant(tag: number, epochMs: number | undefined): void {
    if (epochMs === undefined) return
    if (!(epochMs >= 0) || !Number.isInteger(epochMs)) throw UNUSUAL
    const seconds = Math.floor(epochMs / 1_000)
    const nanos = (epochMs % 1_000) * 1_000_000
    this.need(24)
    this.bytes[this.at++] = tag
    const lengthAt = this.at++
    if (seconds > 0) {
      this.bytes[this.at++] = TAG.timestamp.seconds
      this.varint(seconds)
    }
    if (nanos > 0) {
      this.bytes[this.at++] = TAG.timestamp.nanos
      this.varint(nanos)
    }
    this.bytes[lengthAt] = this.at - lengthAt - 1
  }

  private text(tag: number, text: string): void {
    if (text !== '') this.textAlways(tag, text)
  }

  private textAlways(tag: number, text: string): void {
    this.need(text.length * 3 + 8)
    this.bytes[this.at++] = tag
    // Nearly every text is ASCII and short: try that, and measure only when it is not.
    const { length } = text
    if (length < 128) {
      const start = this.at + 1
      let n = 0
      for (; n < length; n++) {
        const code = text.charCodeAt(n)
        if (code > 127) break
        this.bytes[start + n] = code
      }
      if (n === length) {
        this.bytes[this.at] = length
        this.at = start + length
        return
      }
    }
    this.varint(Buffer.byteLength(text))
    this.at += this.bytes.write(text, this.at)
  }

  /** Begins something whose length is written by `close`. @returns where it begins */
  private open(tag: number): number {
    this.need(LENGTH_BYTES + 1)
    this.bytes[this.at++] = tag
    this.at += LENGTH_BYTES
    return this.at
  }

  private close(start: number): void {
    const length = this.at - start
    this.bytes[start - 4] = (length & 0x7f) | 0x80
    this.bytes[start - 3] = ((length >>> 7) & 0x7f) | 0x80
    this.bytes[start - 2] = ((length >>> 14) & 0x7f) | 0x80
    this.bytes[start - 1] = (length >>> 21) & 0x7f
  }

  private varint(value: number): void {
    let rest = value
    while (rest > 0x7f_ff_ff_ff) {
      this.bytes[this.at++] = (rest % 128) | 0x80
      rest = Math.floor(rest / 128)
    }
    while (rest > 0x7f) {
      this.bytes[this.at++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    this.bytes[this.at++] = rest
  }

  private need(count: number): void {
    if (this.at + count <= this.bytes.length) return
    const larger = Buffer.allocUnsafe((this.bytes.length + count) * 2)
    this.bytes.copy(larger, 0, 0, this.at)
    this.bytes = larger
  }
}

class Reader {
  private at = 0

  constructor(private readonly bytes: Buffer) {}

  request(): PlainRequest {
    let batchId = ''
    let listener = ''
    const messages: PlainMessage[] = []
    const end = this.bytes.length
    while (this.at < end) {
      switch (this.bytes[this.at++]) {
        case TAG.request.batchId:
          batchId = this.text(end)
          break
        case TAG.request.listener:
          listener = this.text(end)
          break
        case TAG.request.messages:
          messages.push(this.message(this.end(end)))
          break
        default:
          throw UNUSUAL
      }
    }
    return { batchId, listener, messages }
  }

  private message(end: number): PlainMessage {
    let deviceId = ''
    let receivedAt: number | undefined
    let payload: Buffer = NOTHING
    let content: PlainMessage['content']
    let topic = ''
    while (this.at < end) {
      switch (this.bytes[this.at++]) {
        case TAG.message.deviceId:
          deviceId = this.text(end)
          break
        case TAG.message.receivedAt:
          receivedAt = this.instant(this.end(end))
          break
        case TAG.message.payload: {
          const stop = this.end(end)
          payload = this.bytes.subarray(this.at, stop)
          this.at = stop
          break
        }
        case TAG.message.report:
          content = { $case: 'report', value: this.report(this.end(end)) }
          break
        case TAG.message.undecodable:
          content = { $case: 'undecodable', value: this.undecodable(this.end(end)) }
          break
        case TAG.message.topic:
          topic = this.text(end)
          break
        default:
          throw UNUSUAL
      }
    }
    return { deviceId, receivedAt, payload, content, topic }
  }

  private report(end: number): PlainReport {
    let sequence: bigint | undefined
    let component = ''
    let timestamp: number | undefined
    const metrics: Record<string, PlainValue> = {}
    let samples: PlainSample[] | undefined
    while (this.at < end) {
      switch (this.bytes[this.at++]) {
        case TAG.report.sequence:
          sequence = BigInt(this.varint(end))
          break
        case TAG.report.component:
          component = this.text(end)
          break
        case TAG.report.timestamp:
          timestamp = this.instant(this.end(end))
          break
        case TAG.report.metrics:
          this.entry(this.end(end), metrics)
          break
        case TAG.report.samples:
          samples ??= []
          samples.push(this.sample(this.end(end)))
          break
        default:
          throw UNUSUAL
      }
    }
    return { sequence, component, timestamp, metrics, samples: samples ?? NO_SAMPLES }
  }

  private sample(end: number): PlainSample {
    let component = ''
    let timestamp: number | undefined
    const metrics: Record<string, PlainValue> = {}
    while (this.at < end) {
      switch (this.bytes[this.at++]) {
        case TAG.sample.component:
          component = this.text(end)
          break
        case TAG.sample.timestamp:
          timestamp = this.instant(this.end(end))
          break
        case TAG.sample.metrics:
          this.entry(this.end(end), metrics)
          break
        default:
          throw UNUSUAL
      }
    }
    return { component, timestamp, metrics }
  }

  private entry(end: number, metrics: Record<string, PlainValue>): void {
    if (this.bytes[this.at++] !== TAG.entry.key) throw UNUSUAL
    const name = this.text(end)
    if (name === '__proto__' || this.bytes[this.at++] !== TAG.entry.value) throw UNUSUAL
    const stop = this.end(end)
    const tag = this.bytes[this.at++]
    if (tag === TAG.value.number && stop - this.at === 8) {
      metrics[name] = this.bytes.readDoubleLE(this.at)
      this.at += 8
    } else if (tag === TAG.value.flag) {
      metrics[name] = this.varint(stop) !== 0
    } else if (tag === TAG.value.text) {
      metrics[name] = this.text(stop)
    } else throw UNUSUAL
    if (this.at !== end || stop !== end) throw UNUSUAL
  }

  private undecodable(end: number): { reason: string; detail: string } {
    let reason = ''
    let detail = ''
    while (this.at < end) {
      const tag = this.bytes[this.at++]
      if (tag === TAG.undecodable.reason) reason = this.text(end)
      else if (tag === TAG.undecodable.detail) detail = this.text(end)
      else throw UNUSUAL
    }
    return { reason, detail }
  }

  private instant(end: number): number {
    let seconds = 0
    let nanos = 0
    while (this.at < end) {
      const tag = this.bytes[this.at++]
      if (tag === TAG.timestamp.seconds) seconds = this.varint(end)
      else if (tag === TAG.timestamp.nanos) nanos = this.varint(end)
      else throw UNUSUAL
    }
    if (nanos > 999_999_999) throw UNUSUAL
    const epochMs = Math.trunc(seconds * 1_000 + nanos / 1_000_000)
    return epochMs <= LAST_MS ? epochMs : Number.NaN
  }

  private text(limit: number): string {
    const end = this.end(limit)
    const text = textAt(this.bytes, this.at, end)
    this.at = end
    return text
  }

  /** Where the length-delimited field that begins here ends. */
  private end(limit: number): number {
    const length = this.varint(limit)
    const end = this.at + length
    if (end > limit) throw UNUSUAL
    return end
  }

  private varint(limit: number): number {
    let value = 0
    let factor = 1
    for (let n = 0; n < 8 && this.at < limit; n++) {
      const digit = this.bytes[this.at++] ?? 0
      value += (digit & 0x7f) * factor
      if (digit < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw UNUSUAL
        return value
      }
      factor *= 128
    }
    throw UNUSUAL
  }
}

const NOTHING = Buffer.alloc(0)
const NO_SAMPLES: readonly PlainSample[] = []

/** The last instant that a Date can hold. */
const LAST_MS = 8.64e15

/**
 * Ids of devices, components and metrics come again with each report: the text that was made the last time is given out
 * again. That saves the making, and its hash for the maps that it is looked up in.
 */
const KNOWN_TEXTS = 4_096
const LONGEST_KNOWN = 64
const knownTexts: Array<{ readonly bytes: Buffer; readonly text: string } | undefined> = new Array(KNOWN_TEXTS)

function textAt(bytes: Buffer, start: number, end: number): string {
  const length = end - start
  if (length === 0) return ''
  if (length > LONGEST_KNOWN) return bytes.toString('utf8', start, end)
  let hash = length
  for (let at = start; at < end; at++) hash = (Math.imul(hash, 31) + (bytes[at] ?? 0)) | 0
  const place = hash & (KNOWN_TEXTS - 1)
  const known = knownTexts[place]
  if (known && isSame(known.bytes, bytes, start, length)) return known.text
  const text = bytes.toString('utf8', start, end)
  // A copy: the request's buffer must not stay in memory for a name.
  knownTexts[place] = { bytes: Buffer.from(bytes.subarray(start, end)), text }
  return text
}

function isSame(known: Buffer, bytes: Buffer, start: number, length: number): boolean {
  if (known.length !== length) return false
  for (let n = 0; n < length; n++) if (known[n] !== bytes[start + n]) return false
  return true
}
