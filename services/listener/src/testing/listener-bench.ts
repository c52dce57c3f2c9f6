import { createMetrics, Health } from '@ares/chassis'
import { type TestAuthority, type TestIdentity, until } from '@ares/chassis/testing'
import { listenerClientId } from '@ares/proto'
import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import type { ListenerConfig } from '../config'
import { connectApi, type ListenerContext } from '../context'
import { ListenerService } from '../service'
import { quietLogger, TestApi } from './test-api'

/** A listener of our own with its api; the broker is whatever the test has. */
export class ListenerBench {
  readonly services: ListenerService[] = []
  private readonly devices: MqttClient[] = []

  private constructor(
    readonly ca: TestAuthority,
    readonly api: TestApi,
    readonly apiPort: number,
  ) {}

  static async create(ca: TestAuthority): Promise<ListenerBench> {
    const api = new TestApi(await ca.identity('api.service.ares4.internal'))
    return new ListenerBench(ca, api, await api.start())
  }

  /** Starts a listener and waits until it is subscribed. */
  async listener(
    url: string,
    changes: Partial<ListenerConfig['mqtt']> = {},
    instance = '0000000a',
    more: Partial<ListenerConfig> = {},
  ): Promise<Started> {
    const identity = await this.ca.identity('listener.service.ares4.internal')
    const config: ListenerConfig = {
      logLevel: 'error',
      opsBind: { host: '127.0.0.1', port: 0 },
      grpcBind: { host: '127.0.0.1', port: 0 },
      vault: { address: 'http://unused', credentials: 'unused' },
      caFile: 'unused',
      apiAddress: `127.0.0.1:${this.apiPort}`,
      mqtt: {
        url,
        version: 'auto',
        clientId: listenerClientId(instance),
        sessionExpiryMs: 10_000,
        receiveMaximum: 2_000,
        maxHeldBytes: 64 * 1024 * 1024,
        leaveGroup: true,
        ...changes,
      },
      batch: { maxItems: 500, maxBytes: 1_048_576, maxAgeMs: 20, maxInFlight: 3, retryFirstMs: 20, retryMaxMs: 200 },
      commitDeadlineMs: 5_000,
      standAsideAfterMs: 10_000,
      drainMs: 3_000,
      heldAlarmMs: 30_000,
      ...more,
    }
    const health = new Health()
    const metrics = createMetrics('listener')
    const api = connectApi(config.apiAddress, identity)
    const context: ListenerContext = { config, logger: quietLogger(), health, metrics, identity, api }
    const service = new ListenerService(context)
    this.services.push(service)
    await service.start()
    const isUp = async () => (await health.report()).checks.mqtt?.ok === true
    await until(isUp, 'the listener is subscribed')
    return { service, context, identity, isUp }
  }

  /** A device, or a person who looks at topics. */
  async device(url: string, options: IClientOptions = {}): Promise<MqttClient> {
    const client = connect(url, { protocolVersion: 5, reconnectPeriod: 50, ...options })
    this.devices.push(client)
    await new Promise<void>((resolve, reject) => {
      client.once('connect', () => resolve())
      client.once('error', reject)
    })
    return client
  }

  async close(): Promise<void> {
    await Promise.all(this.devices.splice(0).map((device) => device.endAsync(true)))
    await this.api.stop()
    await Promise.all(this.services.splice(0).map((service) => service.stop()))
  }
}

export interface Started {
  readonly service: ListenerService
  readonly context: ListenerContext
  readonly identity: TestIdentity
  readonly isUp: () => Promise<boolean>
}

/** A report as a device sends it. */
export const report = (sequence: number, extra: object = {}): string =>
  JSON.stringify({ sequence, component: 'dht22-1', metrics: { temperature: sequence }, ...extra })
