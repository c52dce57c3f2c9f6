import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TestAuthority, type TestLeaf } from '@ares/chassis/testing'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { type EmbeddedBroker, startEmbeddedBroker } from '../embedded-broker'
import type { BrokerLogger } from '../logger'
import { HookServer } from './hook-server'
import { testEnvironment } from './test-environment'

export { testEnvironment } from './test-environment'

export const API_KEY = 'ares:s3cret'
const CONF = join(__dirname, '../../emqx.conf')

/** The repository's emqx.conf, run by the embedded broker on free ports, with an authorizer that the test scripts. */
export class TestBroker {
  private readonly clients: MqttClient[] = []

  private constructor(
    readonly authority: TestAuthority,
    readonly hooks: HookServer,
    readonly folder: string,
    readonly broker: EmbeddedBroker,
    readonly logged: Record<string, unknown>[],
    /** The variables with which this machine differs from emqx.conf. */
    readonly environment: Readonly<Record<string, string>>,
  ) {}

  readonly confFile = CONF

  static async start(overrides: Readonly<Record<string, string>> = {}): Promise<TestBroker> {
    const authority = await TestAuthority.create()
    const hooks = await HookServer.start(authority)
    const folder = mkdtempSync(join(tmpdir(), 'embedded-broker-'))
    const files = { ca: join(folder, 'ca.crt'), cert: join(folder, 'emqx.crt'), key: join(folder, 'emqx.key') }
    const certificate = await authority.leaf('broker.ares4.internal')
    writeFileSync(files.ca, authority.caPem)
    writeFileSync(files.cert, certificate.chainPem)
    writeFileSync(files.key, certificate.keyPem)
    writeFileSync(join(folder, 'api-keys'), `${API_KEY}:administrator\n`)
    const logged: Record<string, unknown>[] = []
    const parts = { files, apiKeysFile: join(folder, 'api-keys'), hookPort: hooks.port, hookName: 'localhost' }
    const env = { ...testEnvironment(parts), ...overrides }
    const broker = await startEmbeddedBroker({ confFile: CONF, env, logger: recorder(logged), certificatePollMs: 50 })
    return new TestBroker(authority, hooks, folder, broker, logged, env)
  }

  /** Connects to the devices' listener, resolved when the CONNACK is there, rejected with its code otherwise. */
  connect(identity: TestLeaf | undefined, options: Partial<IClientOptions> = {}): Promise<MqttClient> {
    return this.open(`mqtts://127.0.0.1:${this.broker.ports.devices}`, identity, options)
  }

  connectService(
    identity: TestLeaf,
    options: Partial<IClientOptions> = {},
    onConnack?: (sessionPresent: boolean) => void,
  ): Promise<MqttClient> {
    return this.open(`mqtts://127.0.0.1:${this.broker.ports.services}`, identity, options, onConnack)
  }

  connectUser(options: Partial<IClientOptions> = {}): Promise<MqttClient> {
    return this.open(`wss://127.0.0.1:${this.broker.ports.users}/mqtt`, undefined, options)
  }

  /** A call of the management API: status and decoded body. */
  async manage(
    method: string,
    path: string,
    body?: unknown,
    key = API_KEY,
  ): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`http://127.0.0.1:${this.broker.ports.management}/api/v5${path}`, {
      method,
      headers: {
        ...(key === '' ? {} : { authorization: `Basic ${Buffer.from(key).toString('base64')}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    return { status: response.status, body: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text }
  }

  /** Ends all clients of a test. */
  async reset(): Promise<void> {
    await Promise.all(this.clients.splice(0).map((client) => client.endAsync(true).catch(() => {})))
    this.hooks.reset()
    this.logged.length = 0
  }

  async stop(): Promise<void> {
    await this.reset()
    await this.broker.stop()
    await this.hooks.stop()
    rmSync(this.folder, { recursive: true })
  }

  private open(
    url: string,
    identity: TestLeaf | undefined,
    options: Partial<IClientOptions>,
    onConnack?: (sessionPresent: boolean) => void,
  ): Promise<MqttClient> {
    const client = mqtt.connect(url, {
      protocolVersion: 4,
      reconnectPeriod: 0,
      connectTimeout: 10_000,
      ca: this.authority.caPem,
      ...(identity ? { cert: identity.chainPem, key: identity.keyPem } : {}),
      ...options,
    })
    this.clients.push(client)
    return new Promise((resolve, reject) => {
      client.once('connect', (connack) => {
        onConnack?.(connack.sessionPresent)
        client.on('error', () => {})
        resolve(client)
      })
      client.once('error', reject)
      client.once('close', () => reject(new Error('closed before the CONNACK')))
    })
  }
}

function recorder(lines: Record<string, unknown>[]): BrokerLogger {
  const record = (level: string) => (message: string, fields?: Record<string, unknown>) => {
    lines.push({ level, message, ...fields })
  }
  return { debug: record('debug'), info: record('info'), warn: record('warn'), error: record('error') }
}
