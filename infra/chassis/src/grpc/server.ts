import type { Http2SecureServer } from 'node:http2'
import type { ServiceName } from '@ares/proto'
import {
  experimental,
  Server,
  type ServerCredentials,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import type { Registry } from 'prom-client'
import type { Bind } from '../config'
import type { LeafSource } from '../leaf'
import type { Logger } from '../log'
import { callMetrics } from './call-metrics'
import { LeafCertificateProvider } from './certificate-provider'
import { guard } from './guard'
import { type OpenStreams, wrapped } from './handlers'
import { FLOW_CONTROL_WINDOW_BYTES, KEEPALIVE, messageLimits } from './limits'

export interface GrpcServer {
  readonly port: number
  /** Takes no new calls, ends the streams, gives the calls that run `drainMs` (default 10 s) to end, then cuts them. */
  stop(drainMs?: number): Promise<void>
}

export interface GrpcServerOptions {
  readonly identity: LeafSource
  readonly bind: Bind
  readonly logger: Logger
  readonly metrics: Registry
  readonly services: ReadonlyArray<{
    readonly definition: ServiceDefinition
    readonly implementation: UntypedServiceImplementation
  }>
  /** Full method path, e.g. `/ares.telemetry.v1.TelemetryService/Ingest` -> the services that may call it. */
  readonly allow: Readonly<Record<string, readonly ServiceName[]>>
  /** Default 16 MiB. */
  readonly maxMessageBytes?: number
  /** How long a connection lives before the peer is asked to make a new one (with the newest certificates); calls and
   *  streams on it go on. Default 1 h. */
  readonly maxConnectionAgeMs?: number
}

/**
 * Serves gRPC over mTLS: only peers with a certificate of our CA reach it, and each method has the list of who may call it.
 * A renewed certificate is shown in new handshakes; open connections and calls stay.
 * @throws when a method has no entry in `allow`, an entry names no method, or the address cannot be bound
 */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  assertComplete(options)
  const openStreams: OpenStreams = new Set()
  const server = new Server({
    ...messageLimits(options.maxMessageBytes),
    ...KEEPALIVE,
    'grpc.max_connection_age_ms': options.maxConnectionAgeMs ?? 3_600_000,
    interceptors: [guard(options.allow, callMetrics(options.metrics, 'server'), options.logger)],
  })
  widenWindow(server)
  for (const { definition, implementation } of options.services) {
    const handlers = Object.entries(definition).map(([name, method]) => {
      const handler = implementation[name]
      if (!handler) throw new Error(`gRPC: nothing implements ${method.path}`)
      return [name, wrapped(method, handler, options.logger, openStreams)] as const
    })
    server.addService(definition, Object.fromEntries(handlers))
  }
  const port = await bind(server, options.bind, credentialsOf(options.identity))
  return { port, stop: (drainMs = 10_000) => stop(server, openStreams, drainMs, options.logger) }
}

/** A method that nobody thought about must not be open, and a name with a typing error must not pass unseen. */
function assertComplete({ services, allow }: GrpcServerOptions): void {
  const paths = services.flatMap(({ definition }) => Object.values(definition).map((method) => method.path))
  const open = paths.filter((path) => !Object.hasOwn(allow, path))
  if (open.length > 0) throw new Error(`gRPC: allow does not say who may call ${open.join(', ')}`)
  const unknown = Object.keys(allow).filter((path) => !paths.includes(path))
  if (unknown.length > 0) throw new Error(`gRPC: allow names what is not served: ${unknown.join(', ')}`)
}

/** The private part of grpc-js 1.14.7 that `widenWindow` stands on; `grpc.test.ts` fails when it changes. */
interface Inside {
  _setupHandlers(http2Server: Http2SecureServer, ...rest: unknown[]): void
}

/** What the option `grpc-node.flow_control_window` does for a client: a server of grpc-js does not read it (grpc-node #3058). */
function widenWindow(server: Server): void {
  const inside = server as unknown as Inside
  const setUp = inside._setupHandlers.bind(server)
  inside._setupHandlers = (http2Server, ...rest) => {
    http2Server.updateSettings({ initialWindowSize: FLOW_CONTROL_WINDOW_BYTES })
    http2Server.on('session', (session) => session.setLocalWindowSize(FLOW_CONTROL_WINDOW_BYTES))
    setUp(http2Server, ...rest)
  }
}

function credentialsOf(identity: LeafSource): ServerCredentials {
  const provider = new LeafCertificateProvider(identity)
  return experimental.createCertificateProviderServerCredentials(provider, provider, true)
}

function bind(server: Server, { host, port }: Bind, credentials: ServerCredentials): Promise<number> {
  const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, bound) => {
      if (error) reject(new Error(`gRPC cannot listen on ${address}: ${error.message}`))
      else resolve(bound)
    })
  })
}

async function stop(server: Server, openStreams: OpenStreams, drainMs: number, logger: Logger): Promise<void> {
  const drained = new Promise<void>((resolve) => {
    server.tryShutdown(() => resolve())
  })
  // Streams have no end of their own: their peers come back to the next server.
  for (const stream of openStreams) {
    stream.emit('error', { code: status.UNAVAILABLE, details: 'the server is stopping' })
  }
  const limit = setTimeout(() => {
    logger.warn('gRPC calls did not end in time and are cut', { drainMs })
    server.forceShutdown()
  }, drainMs)
  await drained
  clearTimeout(limit)
}
