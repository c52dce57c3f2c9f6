import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLogger } from '@ares/chassis'
import { TestAuthority, TestIdentity, type TestLeaf, until } from '@ares/chassis/testing'
import { type EmbeddedBroker, startEmbeddedBroker } from '@ares/emqx'
import { testEnvironment } from '@ares/emqx/testing'
import type { Entry } from '@ares/proto/directory/v1/directory'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import type { AuthorizerConfig } from '../config'
import { AuthorizerService } from '../service'
import { Gate } from './gate'
import { TestApi } from './test-api'
import { snapshot } from './test-directory'

const LOOPBACK = { host: '127.0.0.1', port: 0 }

/** The CONNACK's code for who is refused. */
export const NOT_AUTHORIZED = 5

/** How a client was received: the code of the CONNACK, or `closed` without one. */
export type Reception = MqttClient | number | 'closed'

/**
 * The broker's door as it is: the embedded broker with the repository's emqx.conf, the real authorizer behind a gate, and
 * a gRPC server in api's place that hands out the directory of the test.
 */
export class Door {
  private readonly clients: MqttClient[] = []
  authorizer: AuthorizerService | undefined
  /** How far the authorizer's clock of the directory's age is ahead. */
  aheadMs = 0

  private constructor(
    readonly ca: TestAuthority,
    readonly gate: Gate,
    readonly broker: EmbeddedBroker,
    public api: TestApi,
    private readonly folder: string,
  ) {}

  static async open(requestTimeout = '1s'): Promise<Door> {
    const ca = await TestAuthority.create()
    const gate = await Gate.start()
    const folder = mkdtempSync(join(tmpdir(), 'ares-door-'))
    const env = await brokerEnvironment(ca, folder, gate.port, requestTimeout)
    const silent = () => {}
    const broker = await startEmbeddedBroker({
      confFile: join(__dirname, '../../../../emqx/emqx.conf'),
      env,
      logger: { debug: silent, info: silent, warn: silent, error: silent },
    })
    const api = await TestApi.start(new TestIdentity(await ca.leaf('api.service.ares4.internal')), () => {})
    return new Door(ca, gate, broker, api, folder)
  }

  /** Starts the authorizer, and opens the gate to it. */
  async startAuthorizer(given: Partial<AuthorizerConfig> = {}): Promise<AuthorizerService> {
    const identity = new TestIdentity(await this.ca.leaf('authorizer.service.ares4.internal'))
    const opened = this.api.calls.length
    this.authorizer = await AuthorizerService.create(
      {
        logLevel: 'error',
        opsBind: LOOPBACK,
        webhookBind: LOOPBACK,
        grpcBind: LOOPBACK,
        apiAddress: `127.0.0.1:${this.api.port}`,
        vaultAddress: 'http://127.0.0.1:1',
        vaultCaFile: undefined,
        vaultCredentials: 'parent',
        caFile: 'unused',
        directoryOldAfterMs: 60_000,
        refuseWhenOld: false,
        ...given,
      },
      {
        identity,
        logger: createLogger({ service: 'authorizer', level: 'silent' }),
        clock: () => performance.now() + this.aheadMs,
      },
    )
    await this.authorizer.start()
    await until(() => this.api.calls.length > opened, 'the stream')
    this.gate.turn('open', this.authorizer.ports.webhook)
    return this.authorizer
  }

  /** Sends a whole directory, and waits until it is taken over. */
  async tell(entries: readonly Entry[], version = 1n): Promise<void> {
    for (const event of snapshot(entries, { version, epoch: `epoch-${version}` })) this.api.lastCall.write(event)
    await this.known(version)
  }

  async known(version: bigint): Promise<void> {
    await until(() => this.api.confirmed.some((each) => each.version === version), `version ${version}`)
  }

  connectDevice(leaf: TestLeaf, clientId: string, options: Partial<IClientOptions> = {}): Promise<Reception> {
    const url = `mqtts://127.0.0.1:${this.broker.ports.devices}`
    return this.connect(url, { clientId, cert: leaf.certificatePem, key: leaf.keyPem, ...options })
  }

  connectService(leaf: TestLeaf, clientId: string): Promise<Reception> {
    const url = `mqtts://127.0.0.1:${this.broker.ports.services}`
    return this.connect(url, { clientId, cert: leaf.certificatePem, key: leaf.keyPem })
  }

  connectPerson(email: string, password: string, options: Partial<IClientOptions> = {}): Promise<Reception> {
    const url = `wss://127.0.0.1:${this.broker.ports.users}/mqtt`
    return this.connect(url, { clientId: email, username: email, password, ...options })
  }

  /** Ends all clients of a test. */
  async leave(): Promise<void> {
    await Promise.all(this.clients.splice(0).map((client) => client.endAsync(true).catch(() => {})))
  }

  async close(): Promise<void> {
    await this.leave()
    await this.authorizer?.stop()
    await this.api.stop()
    await this.broker.stop()
    await this.gate.stop()
    rmSync(this.folder, { recursive: true })
  }

  private connect(url: string, options: Partial<IClientOptions>): Promise<Reception> {
    const client = mqtt.connect(url, {
      // The embedded broker speaks 3.1.1 alone.
      protocolVersion: 4,
      reconnectPeriod: 0,
      connectTimeout: 20_000,
      ca: this.ca.caPem,
      ...options,
    })
    this.clients.push(client)
    return new Promise((resolve) => {
      client.once('connect', () => resolve(client))
      client.on('error', (error: Error & { code?: number | string }) => {
        resolve(typeof error.code === 'number' ? error.code : 'closed')
      })
      client.once('close', () => resolve('closed'))
    })
  }
}

/** The client that was let in. @throws for any other reception */
export function inside(reception: Reception): MqttClient {
  if (reception === 'closed' || typeof reception === 'number') throw new Error(`not let in: ${reception}`)
  return reception
}

/** Whether the broker ended the connection for what a client did (deny_action = disconnect) rather than answer it. */
export function isCutOff(client: MqttClient, act: (answered: () => void) => void): Promise<boolean> {
  return new Promise((resolve) => {
    client.once('close', () => resolve(true))
    act(() => client.connected && resolve(false))
  })
}

async function brokerEnvironment(ca: TestAuthority, folder: string, hookPort: number, requestTimeout: string) {
  const leaf = await ca.leaf('broker.ares4.internal')
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const files = {
    cert: file('emqx.crt', leaf.chainPem),
    key: file('emqx.key', leaf.keyPem),
    ca: file('ca.crt', ca.caPem),
  }
  return {
    ...testEnvironment({
      files,
      apiKeysFile: file('api-keys', 'ares:s3cret:administrator\n'),
      hookPort,
      hookName: 'authorizer.service.ares4.internal',
    }),
    EMQX_LISTENERS__SSL__DEVICES__MAX_CONN_RATE: 'infinity',
    EMQX_AUTHENTICATION__1__REQUEST_TIMEOUT: requestTimeout,
    EMQX_AUTHORIZATION__SOURCES__1__REQUEST_TIMEOUT: requestTimeout,
  }
}
