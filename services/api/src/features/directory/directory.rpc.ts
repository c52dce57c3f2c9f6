import { type Logger, unaryHandler } from '@ares/chassis'
import type {
  DirectoryServiceServer,
  WatchDirectoryRequest,
  WatchDirectoryResponse,
} from '@ares/proto/directory/v1/directory'
import { type ServerWritableStream, status } from '@grpc/grpc-js'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { isDatabaseAway } from '../../database/faults'
import type { DirectoryFeed } from './directory.feed'

export interface DirectoryRpcOptions {
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>
  /** How long a watcher may take nothing before its stream is ended. */
  readonly slowAfterMs?: number
  /** Aborted when the service stops: streams end, and the watchers go elsewhere or come back. */
  readonly signal?: AbortSignal
  readonly metrics?: FeedMetrics
}

export type FeedMetrics = ReturnType<typeof createFeedMetrics>

/** What api counts of the feed. */
export function createFeedMetrics(registry: Registry) {
  const registers = [registry]
  return {
    watchers: new Gauge({
      name: 'ares_api_directory_watchers',
      help: 'Authorizers that follow the directory',
      registers,
    }),
    events: new Counter({
      name: 'ares_api_directory_events_total',
      help: 'Events that were sent to authorizers, by kind',
      labelNames: ['kind'] as const,
      registers,
    }),
    sendSeconds: new Histogram({
      name: 'ares_api_directory_send_seconds',
      help: 'How long an event waited for a watcher that reads slowly',
      buckets: [0.001, 0.01, 0.1, 0.5, 1, 5, 10, 30],
      registers,
    }),
  }
}

type Call = ServerWritableStream<WatchDirectoryRequest, WatchDirectoryResponse>

/** DirectoryService over gRPC, for the authorizers. */
export const directoryRpc = (feed: DirectoryFeed, options: DirectoryRpcOptions): DirectoryServiceServer => ({
  watchDirectory: (call: Call) => {
    const left = new AbortController()
    call.once('cancelled', () => left.abort())
    call.once('close', () => left.abort())
    call.once('error', () => left.abort())
    const signal = options.signal ? AbortSignal.any([left.signal, options.signal]) : left.signal
    const { metrics } = options
    const send = async (event: WatchDirectoryResponse) => {
      const done = metrics?.sendSeconds.startTimer()
      await sendWithRoom(call, event, signal, options.slowAfterMs ?? 30_000)
      done?.()
      metrics?.events.inc({ kind: event.event?.$case ?? 'none' })
    }
    metrics?.watchers.inc()
    const watching = feed.watch(call.request, { send, signal }).finally(() => metrics?.watchers.dec())
    watching.then(
      () => end(call, left.signal, { code: status.UNAVAILABLE, details: 'api is stopping' }),
      (error) => {
        if (!left.signal.aborted) options.logger.warn('a watch of the directory ended', { error: String(error) })
        end(call, left.signal, statusOf(error))
      },
    )
  },
  confirmDirectory: unaryHandler(async ({ watchId, version }) => {
    feed.confirm(watchId, version)
    return {}
  }),
})

class SlowWatcher extends Error {}

/** gRPC's flow control: a watcher that reads slowly is waited for, so that its events do not pile up here. */
async function sendWithRoom(
  call: Call,
  event: WatchDirectoryResponse,
  signal: AbortSignal,
  slowAfterMs: number,
): Promise<void> {
  signal.throwIfAborted()
  if (call.write(event)) return
  await new Promise<void>((resolve, reject) => {
    const settle = (error?: Error) => {
      clearTimeout(timer)
      call.off('drain', drained)
      signal.removeEventListener('abort', aborted)
      if (error) reject(error)
      else resolve()
    }
    const drained = () => settle()
    const aborted = () => settle(new Error('the watcher has left'))
    const timer = setTimeout(
      () => settle(new SlowWatcher(`the watcher took nothing for ${slowAfterMs} ms`)),
      slowAfterMs,
    )
    call.once('drain', drained)
    signal.addEventListener('abort', aborted, { once: true })
  })
}

/** An error on the stream becomes its status; a watcher that has left gets none. */
function end(call: Call, left: AbortSignal, answer: { code: status; details: string }): void {
  if (!left.aborted) call.emit('error', answer)
}

function statusOf(error: unknown): { code: status; details: string } {
  if (error instanceof SlowWatcher) return { code: status.RESOURCE_EXHAUSTED, details: error.message }
  if (isDatabaseAway(error)) return { code: status.UNAVAILABLE, details: 'PostgreSQL cannot be reached' }
  return { code: status.INTERNAL, details: 'the watch ended with an internal error, see the log of api' }
}
