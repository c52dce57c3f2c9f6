import type { handleUnaryCall, ServerUnaryCall } from '@grpc/grpc-js'

/** A unary method as an async function. What it throws becomes a status by the one table (see status.ts). */
export function unaryHandler<Req, Res>(
  _work: (request: Req, call: ServerUnaryCall<Req, Res>) => Promise<Res>,
): handleUnaryCall<Req, Res> {
  throw new Error('not built yet')
}
