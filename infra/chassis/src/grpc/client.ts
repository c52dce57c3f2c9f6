import {
  type ChannelCredentials,
  type Client,
  type ClientOptions,
  type ClientUnaryCall,
  experimental,
  type CallOptions as GrpcCallOptions,
  InterceptingCall,
  type Interceptor,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js'
import type { Registry } from 'prom-client'
import type { LeafSource } from '../leaf'
import { REQUEST_ID_HEADER, requestId } from '../request-id'
import { type CallObserver, callMetrics } from './call-metrics'
import { LeafCertificateProvider } from './certificate-provider'
import { FLOW_CONTROL_WINDOW_BYTES, KEEPALIVE, messageLimits } from './limits'

/**
 * A generated client of one peer over mTLS. It connects at the first call and reconnects by itself; new connections use
 * the newest certificate, open calls stay on theirs. Calls made under a request id carry it. `close()` it in the end.
 */
export function createGrpcClient<C extends Client>(options: {
  readonly client: new (address: string, credentials: ChannelCredentials, options?: Partial<ClientOptions>) => C
  /** host:port */
  readonly address: string
  readonly identity: LeafSource
  /** The name the peer's certificate must carry, e.g. `api.service.ares4.internal`. */
  readonly serverName: string
  /** Default 16 MiB. */
  readonly maxMessageBytes?: number
  readonly metrics?: Registry
}): C {
  const provider = new LeafCertificateProvider(options.identity)
  const observe = options.metrics ? callMetrics(options.metrics, 'client') : undefined
  return new options.client(
    options.address,
    experimental.createCertificateProviderChannelCredentials(provider, provider),
    {
      ...messageLimits(options.maxMessageBytes),
      ...KEEPALIVE,
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
      'grpc.ssl_target_name_override': options.serverName,
      'grpc.default_authority': options.serverName,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
      // Each client has its own connection, so that closing one does not touch another.
      'grpc.use_local_subchannel_pool': 1,
      interceptors: [callInterceptor(observe)],
    },
  )
}

/** The callback form of a unary method, as the generated clients have it. */
export type UnaryMethod<Req, Res> = (
  request: Req,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, response: Res) => void,
) => ClientUnaryCall

/**
 * Calls a unary method: `await unary(api, api.ingest, request, { deadlineMs: 5_000 })`.
 * @throws ServiceError of grpc-js with `code` and `details` (CANCELLED when the signal aborts); see also domainCodeOf
 */
export function unary<Req, Res>(
  client: Client,
  method: UnaryMethod<Req, Res>,
  request: Req,
  options: {
    readonly deadlineMs: number
    /** Default: the id of the request that is being worked on. */
    readonly requestId?: string
    readonly signal?: AbortSignal
    /** Waits for a peer that is not there until the deadline, and does not fail at once. */
    readonly waitForReady?: boolean
  },
): Promise<Res> {
  const metadata = new Metadata({ waitForReady: options.waitForReady === true })
  if (options.requestId !== undefined) metadata.set(REQUEST_ID_HEADER, options.requestId)
  const { signal } = options
  return new Promise<Res>((resolve, reject) => {
    const deadline = Date.now() + options.deadlineMs
    const call = method.call(client, request, metadata, { deadline }, (error, response) => {
      signal?.removeEventListener('abort', cancel)
      if (error) reject(error)
      else resolve(response)
    })
    const cancel = () => call.cancel()
    if (signal?.aborted) cancel()
    else signal?.addEventListener('abort', cancel, { once: true })
  })
}

/** Metadata with a request id, for calls made by hand. Calls of createGrpcClient's clients carry the current one anyway. */
export function callMetadata(id: string | undefined = requestId()): Metadata {
  const metadata = new Metadata()
  if (id !== undefined) metadata.set(REQUEST_ID_HEADER, id)
  return metadata
}

function callInterceptor(observe: CallObserver | undefined): Interceptor {
  return (options, nextCall) => {
    const startedAt = performance.now()
    return new InterceptingCall(nextCall(options), {
      start: (metadata, _listener, next) => {
        const id = requestId()
        if (id !== undefined && metadata.get(REQUEST_ID_HEADER).length === 0) metadata.set(REQUEST_ID_HEADER, id)
        next(metadata, {
          onReceiveStatus: (answer, nextStatus) => {
            observe?.(options.method_definition.path, answer.code, startedAt)
            nextStatus(answer)
          },
        })
      },
    })
  }
}
