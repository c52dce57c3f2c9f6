import { unary } from '@ares/chassis'
import { type CommandResponse, type CommandServiceClient, ResponseStatus } from '@ares/proto/commands/v1/commands'
import { Batcher, type Settleable } from '../batcher'
import { MAX_PAYLOAD_BYTES, Unreadable } from '../decode/decoder'
import { parseJson } from '../decode/json-scan'
import type { Delivery } from '../mqtt/holding-client'
import { bookkeeping, reasonOf, type Sink, type SinkParts } from './sink'
import type { TelemetrySink } from './telemetry-sink'

/** `ares4/{id}/responses/{commandId}`: what a device says about a command. */
export class ResponseSink implements Sink {
  private readonly batcher: Batcher<HeldResponse>

  constructor(
    private readonly parts: SinkParts & {
      readonly client: CommandServiceClient
      readonly deadLetters: Pick<TelemetrySink, 'takeUndecodable'>
    },
  ) {
    const { client, deadLetters, deadlineMs } = parts
    this.batcher = new Batcher<HeldResponse>(parts.limits, {
      ...bookkeeping('responses', parts),
      async commit({ id, items }, signal) {
        const responses = items.map((item) => item.response)
        await unary(client, client.recordResponses, { responses }, { deadlineMs, signal, requestId: id })
        return undefined
      },
      condemn({ delivery, response }, error) {
        const why = { reason: 'rejected_by_store', detail: reasonOf(error) }
        deadLetters.takeUndecodable(delivery, response.deviceId, why)
        return 'elsewhere'
      },
    })
  }

  take(delivery: Delivery, deviceId: string, commandId: string): void {
    const { messages } = this.parts.metrics
    try {
      const said = readResponse(delivery.payload)
      messages.inc({ kind: 'response', read: 'response' })
      const response: CommandResponse = { ...said, deviceId, commandId, receivedAt: new Date(delivery.receivedAt) }
      this.batcher.add({ bytes: delivery.payload.length, response, delivery, settle: () => delivery.settle() })
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      messages.inc({ kind: 'response', read: 'undecodable' })
      this.parts.deadLetters.takeUndecodable(delivery, deviceId, { reason: error.reason, detail: error.message })
    }
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
}

interface HeldResponse extends Settleable {
  readonly response: CommandResponse
  readonly delivery: Delivery
}

const MAX_RESULT_BYTES = 64 * 1_024
const MAX_ERROR_LENGTH = 1_024
const STATUSES = new Map<unknown, ResponseStatus>([
  ['progress', ResponseStatus.RESPONSE_STATUS_PROGRESS],
  ['succeeded', ResponseStatus.RESPONSE_STATUS_SUCCEEDED],
  ['failed', ResponseStatus.RESPONSE_STATUS_FAILED],
])

/** `{"status":…,"result"?:any,"error"?:text}`; a long error text is cut. @throws Unreadable */
export function readResponse(payload: Buffer): Pick<CommandResponse, 'status' | 'resultJson' | 'error'> {
  if (payload.length > MAX_PAYLOAD_BYTES) throw new Unreadable('too_large', `at most ${MAX_PAYLOAD_BYTES} bytes`)
  if (payload.length === 0) throw new Unreadable('empty', 'the payload has no bytes')
  const body = parseJson(payload)
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new Unreadable('malformed', 'the payload must be an object')
  }
  const { status: word, result, error } = body as Record<string, unknown>
  const status = STATUSES.get(word)
  if (status === undefined) throw new Unreadable('bad_value', 'status must be "progress", "succeeded" or "failed"')
  if (error !== undefined && typeof error !== 'string') throw new Unreadable('bad_value', 'error must be a text')
  const resultJson = result === undefined ? '' : JSON.stringify(result)
  if (Buffer.byteLength(resultJson) > MAX_RESULT_BYTES) {
    throw new Unreadable('too_large', `result: at most ${MAX_RESULT_BYTES} bytes`)
  }
  return { status, resultJson, error: (error ?? '').slice(0, MAX_ERROR_LENGTH) }
}
