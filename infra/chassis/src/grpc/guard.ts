import { type ServiceName, subjectOf } from '@ares/proto'
import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  status,
} from '@grpc/grpc-js'
import type { Logger } from '../log'
import type { CallObserver } from './call-metrics'

/**
 * Stands before every method: lets only the services on its list in, judged by the certificate of the connection, before
 * anything of the request is read. It counts every call, and hides what a handler let slip: grpc-js turns an error that
 * it does not know into UNKNOWN with the error's own message.
 */
export function guard(
  allow: Readonly<Record<string, readonly ServiceName[]>>,
  observe: CallObserver,
  logger: Logger,
): ServerInterceptor {
  return (method, call) => {
    const startedAt = performance.now()
    let ended = false
    const end = (code: status) => {
      if (ended) return
      ended = true
      observe(method.path, code, startedAt)
    }
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, nextMetadata) => {
            const caller = callerOf(call)
            if (caller.service && allow[method.path]?.includes(caller.service)) return nextMetadata(metadata)
            logger.warn('a gRPC call was refused', { method: method.path, caller: caller.name, peer: call.getPeer() })
            end(status.PERMISSION_DENIED)
            call.sendStatus({
              code: status.PERMISSION_DENIED,
              details: `${caller.name} may not call ${method.path}`,
            })
          },
          onCancel: () => end(Number(call.getDeadline()) <= Date.now() ? status.DEADLINE_EXCEEDED : status.CANCELLED),
        }),
      sendStatus: (answer, next) => {
        const { code = status.OK } = answer
        if (code === status.UNKNOWN) {
          logger.error('a gRPC method failed without telling how', { method: method.path, details: answer.details })
          end(status.INTERNAL)
          return next({ code: status.INTERNAL, details: 'internal error' })
        }
        end(code)
        next(answer)
      },
    })
  }
}

/** Who calls, by the certificate that TLS has verified. */
function callerOf(call: ServerInterceptingCallInterface): { readonly name: string; readonly service?: ServiceName } {
  // Two CNs make this an array: then it is nobody.
  const name: unknown = call.getAuthContext().sslPeerCertificate?.subject?.CN
  if (typeof name !== 'string') return { name: 'a caller without one plain name' }
  const subject = subjectOf(name)
  return subject?.kind === 'service' ? { name, service: subject.service } : { name }
}
