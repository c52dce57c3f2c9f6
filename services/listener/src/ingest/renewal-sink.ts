import { type Logger, unary } from '@ares/chassis'
import { topics } from '@ares/proto'
import type { DeviceServiceClient, RenewCertificateResponse } from '@ares/proto/devices/v1/devices'
import { Unreadable } from '../decode/decoder'
import { parseJson } from '../decode/json-scan'
import type { Delivery } from '../mqtt/holding-client'
import type { IngestMetrics } from './ingest-metrics'
import { reasonOf, type Sink } from './sink'
import type { TelemetrySink } from './telemetry-sink'

/**
 * `ares4/{id}/certificate/request`: a device wants a new certificate. The answer goes to `certificate/response`, and the
 * request is acknowledged after it. A device always hears something, and asks again when it is an error.
 *
 * Acknowledgements go out in the order of receipt, so telemetry would wait behind a slow Vault: a request is held for
 * `holdMs` at most. When the listener dies after that, the answer is lost, and the device asks again.
 */
export class RenewalSink implements Sink {
  private readonly running = new Set<Promise<void>>()
  private readonly stopping = new AbortController()

  constructor(
    private readonly parts: {
      readonly client: DeviceServiceClient
      readonly deadLetters: Pick<TelemetrySink, 'takeUndecodable'>
      readonly publish: (topic: string, payload: string) => Promise<boolean>
      readonly metrics: IngestMetrics
      readonly logger: Logger
      readonly deadlineMs?: number
      readonly holdMs?: number
    },
  ) {}

  take(delivery: Delivery, deviceId: string): void {
    const { messages } = this.parts.metrics
    try {
      const csr = readRequest(delivery.payload)
      messages.inc({ kind: 'renewal', read: 'renewal' })
      const work = this.answer(delivery, deviceId, csr).finally(() => this.running.delete(work))
      this.running.add(work)
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      messages.inc({ kind: 'renewal', read: 'undecodable' })
      this.parts.deadLetters.takeUndecodable(delivery, deviceId, { reason: error.reason, detail: error.message })
    }
  }

  async drain(): Promise<void> {
    await Promise.all(this.running)
  }

  stop(): void {
    this.stopping.abort()
  }

  private async answer(delivery: Delivery, deviceId: string, csr: string): Promise<void> {
    const { metrics, logger, publish, holdMs = 2_000 } = this.parts
    const held = setTimeout(() => delivery.settle(), holdMs)
    try {
      const answer = this.running.size >= MOST_AT_ONCE ? BUSY : await this.ask(deviceId, csr)
      metrics.renewals.inc({ result: 'error' in answer ? answer.error.code : 'issued' })
      await publish(topics.certificateResponse(deviceId), JSON.stringify(answer))
    } catch (error) {
      logger.warn('a device was not told about its certificate; it asks again', { deviceId, reason: reasonOf(error) })
    } finally {
      clearTimeout(held)
      delivery.settle()
    }
  }

  private async ask(deviceId: string, csr: string): Promise<Answer> {
    const { client, logger, deadlineMs = 15_000 } = this.parts
    try {
      const call = { deadlineMs, signal: this.stopping.signal }
      return answerOf(await unary(client, client.renewCertificate, { deviceId, csr }, call))
    } catch (error) {
      logger.warn('api has not answered a request for a certificate', { deviceId, reason: reasonOf(error) })
      return { error: { code: 'unavailable', detail: 'Certificates cannot be had now.', retryAfterSeconds: 30 } }
    }
  }
}

/** What is published on `certificate/response`. */
type Answer =
  | {
      readonly serial: string
      readonly certificate: string
      readonly chain: readonly string[]
      readonly expiresAt: string | undefined
    }
  | { readonly error: { readonly code: string; readonly detail: string; readonly retryAfterSeconds?: number } }

/** Beyond that a fleet asks at once, and Vault signs a few hundred a second. */
const MOST_AT_ONCE = 64
const BUSY: Answer = { error: { code: 'too_busy', detail: 'Too many devices ask at once.', retryAfterSeconds: 10 } }

function answerOf({ result }: RenewCertificateResponse): Answer {
  if (result?.$case === 'certificate') {
    const { serial, certificate, chain, expiresAt } = result.value
    return { serial, certificate, chain, expiresAt: expiresAt?.toISOString() }
  }
  const { code = 'unavailable', detail = '', retryAfterSeconds = 0 } = result?.value ?? {}
  return { error: { code, detail, ...(retryAfterSeconds > 0 ? { retryAfterSeconds } : {}) } }
}

const MAX_REQUEST_BYTES = 20 * 1_024

/** `{"csr":"<PEM>"}`. @throws Unreadable */
function readRequest(payload: Buffer): string {
  if (payload.length > MAX_REQUEST_BYTES) throw new Unreadable('too_large', `at most ${MAX_REQUEST_BYTES} bytes`)
  const body = parseJson(payload) as { readonly csr?: unknown } | null
  if (typeof body?.csr === 'string' && body.csr !== '') return body.csr
  throw new Unreadable('bad_value', 'csr must be a CSR in PEM')
}
