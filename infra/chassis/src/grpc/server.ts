import type { ServiceName } from '@ares/proto'
import type { ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js'
import type { Registry } from 'prom-client'
import type { Bind } from '../config'
import type { LeafSource } from '../leaf'
import type { Logger } from '../log'

export interface GrpcServer {
  readonly port: number
  /** Takes no new calls, gives those that run `drainMs` (default 10 s) to end, then cuts them. */
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
  /** Default 8 MiB. */
  readonly maxMessageBytes?: number
}

export async function startGrpcServer(_options: GrpcServerOptions): Promise<GrpcServer> {
  throw new Error('not built yet')
}
