import type { GrpcServerOptions } from '@ares/chassis'
import type { Route } from './http/route'

/** A part of the house: what it shows to people, what it shows to the other services, and its life. */
export interface Rooms {
  readonly routes: readonly Route[]
  readonly rpc: GrpcServerOptions['services']
  /** Who may call which method. */
  readonly allow: GrpcServerOptions['allow']
  /** After the migrations, before the first request. */
  start(): Promise<void>
  stop(): Promise<void>
}
