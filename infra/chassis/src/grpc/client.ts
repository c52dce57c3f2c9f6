import type {
  ChannelCredentials,
  ClientOptions,
  ClientUnaryCall,
  CallOptions as GrpcCallOptions,
  Client as GrpcJsClient,
  Metadata,
  ServiceError,
} from '@grpc/grpc-js'
import type { LeafSource } from '../leaf'

/** A generated client of one peer over mTLS; it reconnects by itself and new connections use the current certificate. */
export function createGrpcClient<C extends GrpcJsClient>(_options: {
  readonly client: new (address: string, credentials: ChannelCredentials, options?: Partial<ClientOptions>) => C
  /** host:port */
  readonly address: string
  readonly identity: LeafSource
  /** The name the peer's certificate must carry, e.g. `api.service.ares4.internal`. */
  readonly serverName: string
  /** Default 8 MiB. */
  readonly maxMessageBytes?: number
}): C {
  throw new Error('not built yet')
}

export type UnaryMethod<Req, Res> = (
  request: Req,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, response: Res) => void,
) => ClientUnaryCall

/** Calls a unary method: `await unary(client, client.ingest, request, { deadlineMs: 5_000 })`.
 *  @throws ServiceError of grpc-js, with `code` and `details`; code CANCELLED when the signal aborts */
export async function unary<Req, Res>(
  _client: GrpcJsClient,
  _method: UnaryMethod<Req, Res>,
  _request: Req,
  _options: { readonly deadlineMs: number; readonly requestId?: string; readonly signal?: AbortSignal },
): Promise<Res> {
  throw new Error('not built yet')
}

/** Metadata that carries the request id, for calls that do not go through `unary` (streams). */
export function callMetadata(_requestId?: string): Metadata {
  throw new Error('not built yet')
}
