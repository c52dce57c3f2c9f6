import type { Logger } from '@ares/chassis'
import { type ServiceError, status } from '@grpc/grpc-js'
import type { Batch, BatchLimits } from '../batcher'
import type { IngestMetrics } from './ingest-metrics'

/** Where messages of one kind go. All kinds are held until the commit, in the same way. */
export interface Sink {
  drain(): Promise<void>
  stop(): void
}

/** What every sink stands on. */
export interface SinkParts {
  readonly limits: BatchLimits
  readonly metrics: IngestMetrics
  readonly logger: Logger
  /** How long one call may take. */
  readonly deadlineMs: number
  readonly reach: Reach
}

/** Whether api answers, as the calls themselves find it. */
export class Reach {
  private failedSince: number | undefined
  private reason = ''
  /** Messages of all kinds that were committed since the start. */
  committed = 0
  /** When that was last, epoch milliseconds; 0: never. */
  committedAt = 0

  worked(messages: number): void {
    this.failedSince = undefined
    this.committed += messages
    this.committedAt = Date.now()
  }

  /** How long nothing has been committed though it was tried, in milliseconds. */
  get failedForMs(): number {
    return this.failedSince === undefined ? 0 : Date.now() - this.failedSince
  }

  failed(error: unknown): void {
    this.failedSince ??= Date.now()
    this.reason = reasonOf(error)
  }

  /** undefined while it answers. */
  get problem(): string | undefined {
    if (this.failedSince === undefined) return undefined
    return `api has not committed anything for ${Math.round((Date.now() - this.failedSince) / 1_000)} s: ${this.reason}`
  }
}

/**
 * INVALID_ARGUMENT is final, and so is a request that is too large for gRPC. Every other failure may pass, a quota as
 * well (RESOURCE_EXHAUSTED of api itself): the batch is sent again.
 */
export function failureOf(error: unknown): 'invalid' | 'try_again' {
  const { code, details } = error as Partial<ServiceError>
  const isTooLarge = code === status.RESOURCE_EXHAUSTED && /larger than/i.test(details ?? '')
  return code === status.INVALID_ARGUMENT || isTooLarge ? 'invalid' : 'try_again'
}

/** The part of a batcher's work that is the same for every kind. */
export function bookkeeping(sink: string, { metrics, logger, reach }: SinkParts) {
  return {
    failureOf,
    onCommitted(tookMs: number, size: number): void {
      reach.worked(size)
      metrics.batchSize.observe({ sink }, size)
      metrics.commitSeconds.observe({ sink }, tookMs / 1_000)
    },
    onRetry(error: unknown, batch: Batch<unknown>): void {
      reach.failed(error)
      metrics.retries.inc({ sink })
      logger.warn('a batch is not committed; it stays held and is sent again', {
        sink,
        batchId: batch.id,
        messages: batch.items.length,
        reason: reasonOf(error),
      })
    },
  }
}

/** For a person; the details of a gRPC error name the peer's reason. */
export function reasonOf(error: unknown): string {
  const { details, message } = error as Partial<ServiceError>
  return details || message || String(error)
}
