import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type MethodDefinition,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js'
import { DomainError } from '../errors'
import type { Logger } from '../log'
import { REQUEST_ID_HEADER, withRequestId } from '../request-id'
import { type StatusError, statusOf } from './status'

/** A unary method as an async function. What it throws becomes a status: a DomainError its own, anything else INTERNAL. */
export function unaryHandler<Req, Res>(
  work: (request: Req, call: ServerUnaryCall<Req, Res>) => Promise<Res>,
): handleUnaryCall<Req, Res> {
  return (call, callback) => {
    work(call.request, call).then(
      (response) => callback(null, response),
      (error: unknown) => callback(error as Error),
    )
  }
}

/**
 * A server-streaming method as an async generator. It is asked for the next message only when the peer can take it; the
 * signal aborts when the peer is gone or the server stops.
 */
export function streamHandler<Req, Res>(
  work: (request: Req, signal: AbortSignal, call: ServerWritableStream<Req, Res>) => AsyncIterable<Res>,
): handleServerStreamingCall<Req, Res> {
  return async (call: ServerWritableStream<Req, Res>) => {
    const gone = new AbortController()
    for (const event of ['cancelled', 'close', 'error']) call.once(event, () => gone.abort())
    for await (const message of work(call.request, gone.signal, call)) {
      if (gone.signal.aborted) break
      if (!call.write(message)) await drained(call, gone.signal)
    }
    if (!gone.signal.aborted) call.end()
  }
}

/** Streams that are open, so that a stopping server can end them. */
export type OpenStreams = Set<ServerWritableStream<unknown, unknown>>

/**
 * Wraps a method so that it runs under the caller's request id, and whatever way it fails the caller gets a status by the
 * one table while the log gets the error.
 */
export function wrapped(
  method: MethodDefinition<unknown, unknown>,
  handler: UntypedHandleCall,
  logger: Logger,
  openStreams: OpenStreams,
): UntypedHandleCall {
  return method.responseStream
    ? wrappedStream(method.path, handler as StreamHandler, logger, openStreams)
    : wrappedCall(method.path, handler as CallHandler, logger)
}

type CallHandler = (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>) => unknown
type StreamHandler = (call: ServerWritableStream<unknown, unknown>) => unknown

/** A caller that sets no deadline waits no longer than this. */
const LONGEST_CALL_MS = 60_000

function wrappedCall(path: string, handler: CallHandler, logger: Logger): handleUnaryCall<unknown, unknown> {
  return (call, callback) =>
    withRequestId(requestIdOf(call), () => {
      let answered = false
      const answer: sendUnaryData<unknown> = (...outcome) => {
        if (answered) return
        answered = true
        clearTimeout(limit)
        callback(...outcome)
      }
      const fail = (error: unknown) => answer(told(error, path, logger))
      const tooLong = { code: status.DEADLINE_EXCEEDED, details: `no answer in ${LONGEST_CALL_MS} ms` }
      const limit =
        call.getDeadline() === Number.POSITIVE_INFINITY
          ? setTimeout(() => answer(tooLong), LONGEST_CALL_MS).unref()
          : undefined
      attempt(() => handler(call, (error, ...rest) => (error ? fail(error) : answer(null, ...rest))), fail)
    })
}

function wrappedStream(
  path: string,
  handler: StreamHandler,
  logger: Logger,
  openStreams: OpenStreams,
): handleServerStreamingCall<unknown, unknown> {
  return (call) =>
    withRequestId(requestIdOf(call), () => {
      openStreams.add(call)
      call.once('close', () => openStreams.delete(call))
      const fail = (error: unknown) => {
        if (!call.destroyed && !call.writableEnded) call.emit('error', told(error, path, logger))
      }
      attempt(() => handler(call), fail)
    })
}

/** Runs a handler that may throw, or return a promise that fails. */
function attempt(work: () => unknown, fail: (error: unknown) => void): void {
  try {
    const result = work()
    if (result instanceof Promise) result.catch(fail)
  } catch (error) {
    fail(error)
  }
}

/** A status that a handler made itself passes; anything unknown goes to the log and not to the caller. */
function told(error: unknown, path: string, logger: Logger): StatusError {
  if (error instanceof DomainError) return statusOf(error)
  const { code, details } = error as Partial<StatusError>
  if (typeof code === 'number' && code in status && typeof details === 'string') return error as StatusError
  logger.error('a gRPC method failed', { method: path, error })
  return statusOf(error)
}

function requestIdOf(call: { readonly metadata: { get(key: string): Array<string | Buffer> } }): string | undefined {
  const [value] = call.metadata.get(REQUEST_ID_HEADER)
  return typeof value === 'string' ? value : undefined
}

function drained(call: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.off('drain', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    call.once('drain', done)
    signal.addEventListener('abort', done, { once: true })
    if (signal.aborted) done()
  })
}
