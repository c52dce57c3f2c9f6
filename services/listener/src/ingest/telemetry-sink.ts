import { unary } from '@ares/chassis'
import { topics } from '@ares/proto'
import { decodeIngestRequest, type EncodedMessage, type IngestClient, MessageEncoder } from '@ares/proto/ingest-codec'
import type { PlainMessage } from '@ares/proto/plain-telemetry'
import { type IngestResponse, Result, type Undecodable } from '@ares/proto/telemetry/v1/telemetry'
import { type Batch, Batcher, type Settleable } from '../batcher'
import { MAX_PAYLOAD_BYTES, undecodable } from '../decode/decoder'
import { decode } from '../decode/formats'
import type { Delivery, Hold } from '../mqtt/holding-client'
import { bookkeeping, reasonOf, type Sink, type SinkParts } from './sink'

/**
 * Telemetry, and whatever of the other kinds cannot be read: both become rows, the second as dead letters.
 * After the commit the devices that ask for it are told: receipts and errors.
 */
export class TelemetrySink implements Sink {
  private readonly batcher: Batcher<HeldMessage>
  private readonly encoder = new MessageEncoder()
  /** Not yet in the metrics: they are told once a batch, one by one they would cost as much as a JSON.parse. */
  private readonly reads = { report: 0, undecodable: 0 }

  constructor(
    private readonly parts: SinkParts & {
      readonly client: IngestClient
      /** MQTT client id of this listener. */
      readonly listener: string
      readonly tell: (messages: ReadonlyArray<{ topic: string; payload: string }>) => void
    },
  ) {
    const books = bookkeeping('telemetry', parts)
    this.batcher = new Batcher<HeldMessage>(parts.limits, {
      ...books,
      commit: (batch, signal) => this.commit(batch, signal),
      condemn: (item, error) => this.condemn(item, error),
    })
  }

  /** Takes a telemetry message. @param suffix last part of its topic, if that names the format */
  take(delivery: Delivery, deviceId: string, suffix: string | undefined): void {
    const { payload, contentType, receivedAt } = delivery
    const content = decode(payload, { suffix, contentType }, receivedAt)
    this.reads[content.$case]++
    this.add(delivery, { deviceId, content, topic: suffix === undefined ? '' : delivery.topic })
  }

  /** Takes a message of another kind that says nothing we understand: it is kept as a dead letter. */
  takeUndecodable(delivery: Delivery, deviceId: string, why: Undecodable): void {
    this.add(delivery, { deviceId, content: { $case: 'undecodable', value: why }, topic: delivery.topic })
  }

  drain(): Promise<void> {
    return this.batcher.drain()
  }

  trim(most: { readonly items: number; readonly bytes: number }): void {
    this.batcher.trim(most)
  }

  stop(): void {
    this.batcher.stop()
  }

  private add(delivery: Delivery, read: Pick<PlainMessage, 'deviceId' | 'content' | 'topic'>): void {
    const payload = bounded(delivery.payload)
    const message: PlainMessage = {
      deviceId: read.deviceId,
      receivedAt: delivery.receivedAt,
      payload,
      content: read.content,
      topic: boundedTopic(read.topic),
    }
    this.batcher.add(new HeldMessage(delivery.hold, this.encoder.encode(message), payload.length))
  }

  private async commit(batch: Batch<HeldMessage>, signal: AbortSignal): Promise<() => void> {
    this.countReads()
    const { client, listener, deadlineMs } = this.parts
    const messages = batch.items.map((item) => item.encoded)
    const request = { batchId: batch.id, listener, messages }
    const response = await unary(client, client.ingest, request, { deadlineMs, signal, requestId: batch.id })
    this.count(response)
    return () => this.tellDevices(batch, response)
  }

  /** The store will not have this message as it is: it is kept as a dead letter. */
  private condemn(item: HeldMessage, error: unknown): HeldMessage | 'keep' {
    if (item.condemned) return 'keep'
    const message = messageIn(item)
    this.parts.logger.error('the store refuses a message, it becomes a dead letter', {
      deviceId: message.deviceId,
      reason: reasonOf(error),
    })
    const content = undecodable('rejected_by_store', `refused by the store: ${reasonOf(error)}`)
    return new HeldMessage(item.hold, this.encoder.encode({ ...message, content }), item.bytes, true)
  }

  private countReads(): void {
    const { messages } = this.parts.metrics
    for (const read of ['report', 'undecodable'] as const) {
      messages.inc({ kind: 'telemetry', read }, this.reads[read])
      this.reads[read] = 0
    }
  }

  private count({ results, refusals }: IngestResponse): void {
    const { metrics } = this.parts
    const counts = new Map<string, number>()
    for (const result of results) {
      const name = NAMES[result] ?? 'unknown'
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    for (const [result, count] of counts) metrics.results.inc({ result }, count)
    for (const { reason } of refusals) metrics.deadLetters.inc({ reason })
  }

  private tellDevices(batch: Batch<HeldMessage>, { receipts, refusals }: IngestResponse): void {
    const told = receipts.map(({ deviceId, sequences }) => ({
      topic: topics.receipts(deviceId),
      // The numbers are written as they are: JSON.stringify has no way with bigint.
      payload: `{"sequences":[${sequences.join(',')}]}`,
    }))
    for (const { index, reason, detail, notifyDevice } of refusals) {
      const item = batch.items[index]
      if (!notifyDevice || !item) continue
      const message = messageIn(item)
      const sequence = message.content?.$case === 'report' ? message.content.value.sequence : undefined
      told.push({
        topic: topics.errors(message.deviceId),
        payload: JSON.stringify({ sequence: sequence === undefined ? undefined : Number(sequence), reason, detail }),
      })
    }
    this.parts.tell(told)
  }
}

/** Bytes, and no objects: thousands wait at a time, and each collection of garbage would move all they hold. */
class HeldMessage implements Settleable {
  constructor(
    readonly hold: Hold,
    readonly encoded: EncodedMessage,
    readonly bytes: number,
    /** It is on its way to the dead letters already. */
    readonly condemned = false,
  ) {}

  settle(): void {
    this.hold.settle()
  }
}

function messageIn({ encoded: { chunk, start, end } }: HeldMessage): PlainMessage {
  const [message] = decodeIngestRequest(chunk.subarray(start, end)).messages
  if (!message) throw new Error('what was encoded is one message')
  return message
}

const NAMES: Partial<Record<Result, string>> = {
  [Result.RESULT_COMMITTED]: 'committed',
  [Result.RESULT_DUPLICATE]: 'duplicate',
  [Result.RESULT_DEAD_LETTERED]: 'dead_lettered',
}

/** A dead letter keeps the first 256 KiB. */
const bounded = (payload: Buffer): Buffer =>
  payload.length > MAX_PAYLOAD_BYTES ? payload.subarray(0, MAX_PAYLOAD_BYTES) : payload

const MAX_TOPIC_BYTES = 512
const boundedTopic = (topic: string): string =>
  Buffer.byteLength(topic) > MAX_TOPIC_BYTES ? topic.slice(0, MAX_TOPIC_BYTES / 4) : topic
