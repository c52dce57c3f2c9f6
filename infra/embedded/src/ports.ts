import { freePorts, isFree } from '@ares/chassis'
import { StackProblem } from './problem'
import type { StateFolder } from './state-folder'

/** What people and devices connect to. */
export interface PublicPorts {
  /** REST and the pages of its documentation. */
  readonly http: number
  /** MQTT over mutual TLS, for devices. */
  readonly mqtt: number
  /** MQTT over secure WebSocket, for people. */
  readonly wss: number
}

/** What the parts use among themselves, on the loopback address alone. */
const INTERNAL = [
  'postgres',
  'vault',
  'apiGrpc',
  'apiOps',
  'authorizerWebhook',
  'authorizerOps',
  'authorizerGrpc',
  'mqttServices',
  'brokerManagement',
  'listenerGrpc',
  'listenerOps',
  'listener2Grpc',
  'listener2Ops',
] as const
export type InternalPorts = Readonly<Record<(typeof INTERNAL)[number], number>>
export type Ports = PublicPorts & InternalPorts

export const DEFAULT_PORTS: PublicPorts = { http: 8080, mqtt: 8883, wss: 8084 }

const FILE = 'ports.json'
const OPTIONS: Readonly<Record<keyof PublicPorts, string>> = {
  http: '--http-port',
  mqtt: '--mqtt-port',
  wss: '--wss-port',
}

/**
 * The ports of this stack. Internal ones are chosen once and remembered, so that they are the same after a restart; one
 * that somebody else has taken meanwhile is chosen anew.
 * @param wanted 0 means any free one
 * @throws StackProblem when a public port is taken
 */
export async function choosePorts(state: StateFolder, wanted: PublicPorts): Promise<Ports> {
  for (const [name, port] of Object.entries(wanted) as Array<[keyof PublicPorts, number]>) {
    if (port === 0 || (await isFree(port, '0.0.0.0'))) continue
    throw new StackProblem(
      `Port ${port} is taken`,
      `another program listens on it${port < 1024 ? ', or we may not use it' : ''}`,
      `Stop that program, or choose another port: npm start -- ${OPTIONS[name]} ${port + 1}`,
    )
  }
  const remembered = state.readJson<Partial<InternalPorts>>(FILE) ?? {}
  const spare = await freePorts(INTERNAL.length + 3)
  const next = () => spare.pop() as number
  const internal: Record<string, number> = {}
  for (const name of INTERNAL) {
    const port = remembered[name]
    internal[name] = port && (await isFree(port)) ? port : next()
  }
  state.writeJson(FILE, internal)
  return {
    ...(internal as InternalPorts),
    http: wanted.http || next(),
    mqtt: wanted.mqtt || next(),
    wss: wanted.wss || next(),
  }
}
