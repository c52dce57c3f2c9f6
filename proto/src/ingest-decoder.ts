import { IngestRequest } from './gen/ares/telemetry/v1/telemetry'
import { TAG, UNUSUAL } from './ingest-tags'
import {
  type PlainMessage,
  type PlainReport,
  type PlainRequest,
  type PlainSample,
  type PlainValue,
  plainRequest,
} from './plain-telemetry'

/**
 * Reads an IngestRequest, or a part of one that is whole fields.
 * @throws Error for bytes that are no IngestRequest
 */
export function decodeIngestRequest(bytes: Buffer): PlainRequest {
  try {
    return new Reader(bytes).request()
  } catch (error) {
    if (error !== UNUSUAL) throw error
    return plainRequest(IngestRequest.decode(bytes))
  }
}

class Reader {
  private at = 0
  private readonly view: DataView

  constructor(private readonly bytes: Buffer) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  }

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
      metrics[name] = this.view.getFloat64(this.at, true)
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
