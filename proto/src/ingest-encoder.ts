import { IngestRequest, Message } from './gen/ares/telemetry/v1/telemetry'
import { TAG, UNUSUAL } from './ingest-tags'
import {
  contractMessage,
  type PlainMessage,
  type PlainMetrics,
  type PlainReport,
  type PlainSample,
} from './plain-telemetry'

/**
 * One message as a request holds it: tag, length and content of one entry of `IngestRequest.messages`. It is a part of a
 * chunk that it shares with others, from `start` to before `end`.
 */
export interface EncodedMessage {
  readonly chunk: Buffer
  readonly start: number
  readonly end: number
}

/** IngestRequest, its messages encoded already. */
export interface EncodedRequest {
  readonly batchId: string
  readonly listener: string
  readonly messages: readonly EncodedMessage[]
}

/** Messages that were encoded one after the other lie side by side, and are copied together. */
export function joinIngestRequest({ batchId, listener, messages }: EncodedRequest): Buffer {
  const head = IngestRequest.encode({ batchId, listener, messages: [] }).finish()
  const size = messages.reduce((sum, { start, end }) => sum + end - start, head.length)
  const request = Buffer.allocUnsafe(size)
  request.set(head)
  let at = head.length
  for (let n = 0; n < messages.length; ) {
    const { chunk, start } = messages[n] as EncodedMessage
    let { end } = messages[n++] as EncodedMessage
    for (let next = messages[n]; next?.chunk === chunk && next.start === end; next = messages[++n]) end = next.end
    at += chunk.copy(request, at, start, end)
  }
  return request
}

const CHUNK_BYTES = 128 * 1024

/** Encodes messages when they come: what is held until the commit is bytes, and not the objects that were read. */
export class MessageEncoder {
  private writer = new Writer(CHUNK_BYTES)

  encode(message: PlainMessage): EncodedMessage {
    for (let size = CHUNK_BYTES; ; size *= 2) {
      const encoded = this.writer.message(message)
      if (encoded) return encoded
      this.writer = new Writer(size)
    }
  }
}

/** Room for the length of something whose size is not known yet: a varint of four bytes, the first three with more to come. */
const LENGTH_BYTES = 4

/** Thrown where the chunk ends before the message. */
const FULL = Symbol('full')

class Writer {
  private readonly bytes: Buffer
  private readonly view: DataView
  private at = 0

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size)
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, size)
  }

  /** @returns undefined when there is no room for it, and nothing is written */
  message(message: PlainMessage): EncodedMessage | undefined {
    const start = this.at
    try {
      this.plain(message)
    } catch (error) {
      this.at = start
      if (error === FULL) return undefined
      if (error !== UNUSUAL) throw error
      if (!this.generated(Message.encode(contractMessage(message)).finish())) return undefined
    }
    return { chunk: this.bytes, start, end: this.at }
  }

  private generated(bytes: Uint8Array): boolean {
    if (this.at + bytes.length + LENGTH_BYTES + 1 > this.bytes.length) return false
    const start = this.open(TAG.request.messages)
    this.bytes.set(bytes, start)
    this.at += bytes.length
    this.close(start)
    return true
  }

  private plain({ deviceId, receivedAt, payload, content, topic }: PlainMessage): void {
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
      if (typeof value === 'number' && this.shortNumber(tag, name, value)) continue
      const start = this.open(tag)
      this.text(TAG.entry.key, name)
      this.value(value)
      this.close(start)
    }
  }

  /** Nearly every value is a number under a short ASCII name: its length is known before. @returns false if it is not */
  private shortNumber(tag: number, name: string, value: number): boolean {
    const { bytes, at } = this
    const { length } = name
    if (length === 0 || length > MAX_SHORT_NAME) return false
    this.need(length + NUMBER_BYTES + 4)
    let end = at + 4
    for (let n = 0; n < length; n++) {
      const code = name.charCodeAt(n)
      if (code > 127) return false
      bytes[end++] = code
    }
    bytes[at] = tag
    bytes[at + 1] = length + NUMBER_BYTES + 2
    bytes[at + 2] = TAG.entry.key
    bytes[at + 3] = length
    bytes[end] = TAG.entry.value
    bytes[end + 1] = 9
    bytes[end + 2] = TAG.value.number
    this.view.setFloat64(end + 3, value, true)
    this.at = end + NUMBER_BYTES
    return true
  }

  private value(value: PlainMetrics[string]): void {
    const start = this.open(TAG.entry.value)
    switch (typeof value) {
      case 'number':
        this.need(9)
        this.bytes[this.at++] = TAG.value.number
        this.view.setFloat64(this.at, value, true)
        this.at += 8
        break
      case 'boolean':
        this.need(2)
        this.bytes[this.at++] = TAG.value.flag
        this.bytes[this.at++] = value ? 1 : 0
        break
      case 'string':
        // Also when it is empty: it is the case that counts.
        this.textAlways(TAG.value.text, value)
        break
      default:
        throw UNUSUAL
    }
    this.close(start)
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
    if (this.at + count > this.bytes.length) throw FULL
  }
}

/** Tag, length and content of a value that is a number. */
const NUMBER_BYTES = 11

/** With what goes with it, its entry is still shorter than 128 bytes: the length is one byte. */
const MAX_SHORT_NAME = 100
