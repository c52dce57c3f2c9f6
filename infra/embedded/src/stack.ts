import { join } from 'node:path'
import { createLogger } from '@ares/chassis'
import { SERVICE_NAMES, type ServiceName } from '@ares/proto'
import { ApiClient, DEMO_FLEET, Simulator } from '@ares/simulator'
import {
  agentCredentialsFromBootstrap,
  bootstrap,
  findVaultBinary,
  issueWrappedSecretId,
  startVaultServer,
  VaultAgent,
} from '@ares/vault'
import { brokerEnvironment } from './broker-environment'
import {
  type LaunchOptions,
  launchCommand,
  launchNode,
  listensOn,
  plainEnvironment,
  readinessOf,
} from './child-process'
import { generateDatabaseClient } from './database-client'
import { firstLogin, type Login, secretsOf } from './first-login'
import { PartLog } from './part-log'
import { choosePorts, DEFAULT_PORTS, type Ports, type PublicPorts } from './ports'
import { startPostgres } from './postgres'
import { StackProblem } from './problem'
import { type Progress, SILENT, step } from './progress'
import { StackLock, signalGroup } from './stack-lock'
import { StateFolder } from './state-folder'
import { type PartEvent, type Running, SupervisedPart } from './supervised-part'

export const PART_NAMES = ['postgres', 'vault', 'api', 'authorizer', 'broker', 'listener', 'listener-2'] as const
export type PartName = (typeof PART_NAMES)[number]

export interface StackOptions {
  /** Everything that is kept lies here; see StateFolder. */
  readonly stateDir: string
  /** Default 8080, 8883 and 8084; 0 means any free one. */
  readonly ports?: Partial<PublicPorts>
  /** Address that REST listens on; default 127.0.0.1, because it is plain HTTP. */
  readonly httpHost?: string
  /** How many simulated devices; 0 or absent: none. */
  readonly devices?: number
  /** Time between two reports of a simulated device. */
  readonly deviceIntervalMs?: number
  /** 1 (default) or 2 listeners in the shared subscription. */
  readonly listeners?: 1 | 2
  /** Command line that runs a real EMQX in the foreground, in the embedded broker's place. */
  readonly emqx?: string
  /** More environment variables for a part, over those that it gets. */
  readonly env?: Partial<Readonly<Record<PartName, Readonly<Record<string, string>>>>>
  readonly postgresSettings?: Readonly<Record<string, string | number>>
  /**
   * Ports of proxies that the caller has put on the way from api to PostgreSQL and from the listeners to the broker. They
   * lead to `ports.postgres` and `ports.mqttServices`; with them the caller can cut what they carry.
   */
  readonly detours?: { readonly database?: number; readonly services?: number }
  readonly progress?: Progress
  /** A part died, came back, or does not come back. */
  readonly onEvent?: (event: PartEvent) => void
}

/** Starts the whole stack; when it cannot, what was started is stopped again. @throws StackProblem */
export async function startStack(options: StackOptions): Promise<Stack> {
  const stack = new Stack(options)
  await stack.start()
  return stack
}

/**
 * The whole of Ares on this machine, without Docker: PostgreSQL, Vault, broker, the three services, simulated devices.
 * Every part is a process of its own that is started again when it dies.
 */
export class Stack {
  readonly state: StateFolder
  readonly startedAt = new Date()
  private readonly progress: Progress
  private readonly parts = new Map<PartName, SupervisedPart>()
  private readonly logs = new Map<string, PartLog>()
  private lock: StackLock | undefined
  private agent: VaultAgent | undefined
  private stopping: Promise<void> | undefined
  private chosen: Ports | undefined
  private restClient: ApiClient | undefined
  private databaseUrl = ''
  private vaultCaPem = ''
  /** The simulated devices, when there are any. */
  simulator: Simulator | undefined

  constructor(private readonly options: StackOptions) {
    this.state = new StateFolder(options.stateDir)
    this.progress = options.progress ?? SILENT
  }

  get ports(): Ports {
    if (!this.chosen) throw new Error('the stack has no ports before it is started')
    return this.chosen
  }

  get urls() {
    const { http, mqtt, wss } = this.ports
    const rest = `http://127.0.0.1:${http}`
    return {
      rest,
      docs: `${rest}/docs`,
      mqtt: `mqtts://localhost:${mqtt}`,
      wss: `wss://localhost:${wss}/mqtt`,
      database: this.databaseUrl,
      vault: `https://127.0.0.1:${this.ports.vault}`,
      brokerManagement: `http://127.0.0.1:${this.ports.brokerManagement}`,
    }
  }

  get login(): Login {
    return firstLogin(this.state)
  }

  /** Root and intermediate: what clients check the broker against. */
  get caFile(): string {
    return this.state.at('certs/ca/full_chain_ca.crt')
  }

  /** Health and metrics of a service. */
  opsUrl(name: PartName): string {
    return `http://127.0.0.1:${this.opsPortOf(name)}`
  }

  /** How to reach Vault, and the file that opens it. */
  get vault(): { readonly address: string; readonly caPem: string; readonly keyFile: string } {
    return { address: this.urls.vault, caPem: this.vaultCaPem, keyFile: this.state.at('vault/keys.json') }
  }

  /** A REST client that logs in as the first user, once. */
  client(): ApiClient {
    this.restClient ??= new ApiClient(this.urls.rest, this.login)
    return this.restClient
  }

  /** @throws StackProblem; everything that was started is stopped again then */
  async start(): Promise<void> {
    try {
      await this.prepareGround()
      await Promise.all([this.startPostgres(), this.startVault(), this.generate()])
      this.state.markPrepared()
      await this.startServices()
      if (this.options.devices) await this.startSimulator(this.options.devices)
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** Makes the state: PostgreSQL's cluster, a Vault that is set up, certificates. Leaves nothing running. */
  async prepare(): Promise<void> {
    try {
      await this.prepareGround()
      await Promise.all([this.startPostgres(), this.startVault(), this.generate()])
      this.state.markPrepared()
    } finally {
      await this.stop()
    }
  }

  /** True from the moment somebody wanted it to stop. */
  get stopAsked(): boolean {
    return this.stopping !== undefined
  }

  /** Stops in order: who asks before who answers. May be called at any time, and again. */
  stop(): Promise<void> {
    this.stopping ??= this.stopAll()
    return this.stopping
  }

  /** Kills everything at once and leaves it to the next start to mend. */
  abandon(): void {
    for (const part of this.parts.values()) if (part.pid) signalGroup(part.pid, 'SIGKILL')
  }

  /** Starts a part that was stopped, and waits until it serves. */
  startPart(name: PartName): Promise<void> {
    return this.part(name).start()
  }

  /** Stops a part in its own good order; it stays down. */
  stopPart(name: PartName): Promise<void> {
    return this.part(name).stop()
  }

  /** Sends a signal to a part; one that ends of it is started again by the supervisor. */
  kill(name: PartName, signal: NodeJS.Signals): void {
    this.part(name).kill(signal)
  }

  pidOf(name: PartName): number | undefined {
    return this.part(name).pid
  }

  /** The last lines that a part printed. */
  lastLines(name: PartName, count = 20): readonly string[] {
    return this.log(name).tail(count)
  }

  /** Waits until a service says that it is ready. @throws when it does not within `limitMs`, with what is missing */
  async waitUntilReady(name: PartName, limitMs = 30_000): Promise<void> {
    const end = Date.now() + limitMs
    for (;;) {
      const missing = await this.probe(name)
      if (missing === undefined) return
      if (Date.now() > end) throw new Error(`${name} is not ready after ${limitMs} ms: ${missing}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  private part(name: PartName): SupervisedPart {
    const part = this.parts.get(name)
    if (!part) throw new Error(`this stack has no ${name}`)
    return part
  }

  private async prepareGround(): Promise<void> {
    this.state.make()
    this.lock = await StackLock.take(this.state, (line) => this.progress.note(line))
    this.chosen = await choosePorts(this.state, { ...DEFAULT_PORTS, ...this.options.ports })
    firstLogin(this.state)
  }

  private async generate(): Promise<void> {
    await this.step('Database client', generateDatabaseClient)
  }

  private async startPostgres(): Promise<void> {
    const log = this.log('postgres')
    const launch = async (): Promise<Running> => {
      const postgres = await startPostgres({
        dir: this.state.postgres,
        port: this.ports.postgres,
        settings: { ...FOR_INGESTION, ...this.options.postgresSettings },
        log: log.write,
      })
      this.databaseUrl = postgres.url
      return { ...postgres, ended: postgres.exited, ready: Promise.resolve() }
    }
    await this.step('PostgreSQL', () => this.supervise('postgres', launch), `port ${this.ports.postgres}`)
  }

  private async startVault(): Promise<void> {
    const binary = await this.step('Vault server, the program', () =>
      findVaultBinary({ onProgress: (line) => this.progress.note(line) }),
    )
    const launch = async (): Promise<Running> => {
      const server = await startVaultServer({ binary, dir: this.state.vault, port: this.ports.vault })
      this.vaultCaPem = server.caPem
      return {
        pid: server.pid,
        ready: Promise.resolve(),
        ended: server.ended,
        stop: server.stop,
        kill: (signal) => signalGroup(server.pid, signal),
      }
    }
    await this.step('Vault', () => this.supervise('vault', launch), `port ${this.ports.vault}`)
    await this.step('Certificates, policies, keys', () => this.setUpVault())
  }

  private async setUpVault(): Promise<void> {
    const { keyFile, ...connection } = this.vault
    const logger = createLogger({ service: 'vault-agent', stream: this.log('vault-agent').asStream() })
    const certsDir = this.state.certs
    await bootstrap({ ...connection, keyFile, certsDir, emqxApiKeyFile: this.state.emqxKeys, logger })
    const credentials = agentCredentialsFromBootstrap(connection, keyFile)
    this.agent = await VaultAgent.start({ ...connection, credentials, certsDir, logger })
    if (this.stopAsked) await this.agent.stop()
  }

  private async startServices(): Promise<void> {
    const { ports, options } = this
    const startBroker = () =>
      this.step(options.emqx ? 'EMQX' : 'Broker (embedded)', () => this.startBroker(), `port ${ports.mqtt}`)
    const authorizer = this.startService('authorizer', 'authorizer', {
      ARES_WEBHOOK_BIND: `127.0.0.1:${ports.authorizerWebhook}`,
      ARES_GRPC_BIND: `127.0.0.1:${ports.authorizerGrpc}`,
      ARES_API_ADDRESS: `127.0.0.1:${ports.apiGrpc}`,
    })
    const api = this.startService('api', 'api', this.apiEnvironment())
    // A real EMQX that does not find its authorizer looks again only after 15 s.
    const broker = options.emqx ? authorizer.then(startBroker) : startBroker()
    // A listener that is refused waits ever longer, so it comes when it can be admitted.
    const admission = Promise.all([authorizer, broker])
    const listener = admission.then(() => this.startListener('listener', 0))
    const second = options.listeners === 2 ? admission.then(() => this.startListener('listener-2', 1)) : undefined
    await Promise.all([api, authorizer, broker, listener, second])
  }

  private apiEnvironment(): Record<string, string> {
    const { ports, login } = this
    const listeners = [ports.listenerGrpc, ...(this.options.listeners === 2 ? [ports.listener2Grpc] : [])]
    return {
      ARES_HTTP_BIND: `${this.options.httpHost ?? '127.0.0.1'}:${ports.http}`,
      ARES_GRPC_BIND: `127.0.0.1:${ports.apiGrpc}`,
      ARES_DATABASE_URL: withPort(this.databaseUrl, this.options.detours?.database),
      ARES_LISTENER_ADDRESSES: listeners.map((port) => `127.0.0.1:${port}`).join(','),
      ARES_AUTHORIZER_ADDRESSES: `127.0.0.1:${ports.authorizerGrpc}`,
      ARES_EMQX_API_URL: this.urls.brokerManagement,
      ARES_FIRST_USER_EMAIL: login.email,
      ARES_FIRST_USER_PASSWORD: login.password,
    }
  }

  private startListener(name: 'listener' | 'listener-2', index: 0 | 1): Promise<void> {
    const { ports } = this
    // An only listener keeps its session while it is away, and the broker queues for it; of two, the other takes over.
    const alone = this.options.listeners !== 2
    return this.startService(name, 'listener', {
      ARES_GRPC_BIND: `127.0.0.1:${index === 0 ? ports.listenerGrpc : ports.listener2Grpc}`,
      ARES_MQTT_URL: `mqtts://localhost:${this.options.detours?.services ?? ports.mqttServices}`,
      ARES_API_ADDRESS: `127.0.0.1:${ports.apiGrpc}`,
      ARES_LISTENER_INSTANCE: secretsOf(this.state).listeners[index] ?? '',
      ...(alone ? { ARES_MQTT_SESSION_EXPIRY: '1h', ARES_LEAVE_GROUP_ON_STOP: 'false' } : {}),
    })
  }

  private startService(name: PartName, service: ServiceName, own: Record<string, string>): Promise<void> {
    const opsPort = this.opsPortOf(name)
    const env = plainEnvironment({
      ARES_OPS_BIND: `127.0.0.1:${opsPort}`,
      ARES_VAULT_ADDR: this.urls.vault,
      ARES_VAULT_CA_FILE: this.state.at('vault/tls/ca.crt'),
      ARES_VAULT_CREDENTIALS: 'parent',
      ARES_CA_FILE: this.caFile,
      ...own,
      ...this.options.env?.[name],
    })
    const folder = `services/${service}`
    const launch = async () =>
      launchNode(
        { source: `${folder}/src/main.ts`, built: `${folder}/dist/main.js` },
        {
          ...this.launchOptions(name, env),
          nodeFlags: service === 'authorizer' ? [] : ROOM_FOR_BATCHES,
          onMessage: (message) => this.answer(service, message),
        },
      )
    const title = name === 'api' ? 'api' : name
    return this.step(title, () => this.supervise(name, launch), name === 'api' ? `port ${this.ports.http}` : undefined)
  }

  private startBroker(): Promise<void> {
    const own = {
      ...brokerEnvironment(this.state, this.ports, secretsOf(this.state).cookie),
      ...this.options.env?.broker,
    }
    const { emqx } = this.options
    const launch = async () =>
      emqx
        ? launchCommand(emqx, this.launchOptions('broker', { ...process.env, ...own }))
        : launchNode(EMBEDDED_BROKER, this.launchOptions('broker', plainEnvironment(own)))
    return this.supervise('broker', launch)
  }

  private launchOptions(name: PartName, env: NodeJS.ProcessEnv): LaunchOptions {
    const probe = () => this.probe(name)
    return { env, log: this.log(name), probe, readyWithinMs: 90_000, stopWithinMs: 20_000 }
  }

  /** Undefined when the part serves, otherwise what is missing. */
  private async probe(name: PartName): Promise<string | undefined> {
    if (name === 'broker') {
      const { mqtt, mqttServices } = this.ports
      for (const port of [mqtt, mqttServices]) if (!(await listensOn(port))) return `nobody listens on port ${port}`
      return undefined
    }
    const opsPort = this.opsPortOf(name)
    if (opsPort) return readinessOf(opsPort)
    return this.pidOf(name) ? undefined : 'it does not run'
  }

  private opsPortOf(name: PartName): number | undefined {
    const { apiOps, authorizerOps, listenerOps, listener2Ops } = this.ports
    const ports: Partial<Record<PartName, number>> = {
      api: apiOps,
      authorizer: authorizerOps,
      listener: listenerOps,
      'listener-2': listener2Ops,
    }
    return ports[name]
  }

  /** What a service asks its parent for: credentials for a login at Vault, wrapped, of its own role and no other. */
  private async answer(service: ServiceName, message: unknown): Promise<object | undefined> {
    if (!isCredentialRequest(message) || !this.agent || !SERVICE_NAMES.includes(service)) return undefined
    const { roleId, wrapToken } = await issueWrappedSecretId(this.agent.vault, service)
    return { type: 'ares-credential', id: message.id, roleId, wrappedSecretId: wrapToken }
  }

  private async startSimulator(devices: number): Promise<void> {
    const plan = { ...DEMO_FLEET, devices }
    const log = this.log('simulator')
    const start = () =>
      Simulator.start(this.client(), {
        plan,
        mqttUrl: this.urls.mqtt,
        intervalMs: this.options.deviceIntervalMs,
        log: (line) => log.write(`${new Date().toISOString()} ${line}\n`),
      })
    this.simulator = await this.step(`${devices} simulated devices`, start)
    if (this.stopAsked) await this.simulator.stop()
  }

  private async supervise(name: PartName, launch: () => Promise<Running>): Promise<void> {
    const part = new SupervisedPart({
      name,
      launch,
      lastLines: () => this.log(name).tail(8),
      onEvent: (event) => this.options.onEvent?.(event),
      onProcess: (pid) => this.lock?.holds(name, pid),
    })
    this.parts.set(name, part)
    await part.start()
  }

  private log(name: string): PartLog {
    const known = this.logs.get(name)
    if (known) return known
    const log = new PartLog(join(this.state.logs, `${name}.log`))
    this.logs.set(name, log)
    return log
  }

  private async step<T>(name: string, work: () => Promise<T>, detail?: string): Promise<T> {
    if (this.stopAsked) throw new StackProblem('The stack', 'was stopped while it started', 'Start it again: npm start')
    try {
      return await step(this.progress, name, work, detail)
    } catch (error) {
      if (error instanceof StackProblem) throw error
      throw new StackProblem(
        `${name}: failed`,
        error instanceof Error ? error.message : String(error),
        `What the parts said is in ${this.state.logs}. If the state is broken, "npm run init" makes a new one.`,
        error,
      )
    }
  }

  private async stopAll(): Promise<void> {
    await this.simulator?.stop()
    for (const names of STOP_ORDER) await Promise.all(names.map((name) => this.parts.get(name)?.stop()))
    await this.agent?.stop()
    for (const name of ['vault', 'postgres'] as const) await this.parts.get(name)?.stop()
    await Promise.all([...this.logs.values()].map((log) => log.close()))
    this.lock?.release()
  }
}

/** PostgreSQL's own defaults are for a small machine of long ago. Nothing here weakens what a commit promises. */
const FOR_INGESTION: Readonly<Record<string, string | number>> = {
  shared_buffers: '256MB',
  // Ten thousand rows a second are 3 MB of WAL; each checkpoint makes the first change of a page a whole page of it.
  max_wal_size: '4GB',
  checkpoint_timeout: '15min',
  wal_compression: 'on',
}

/**
 * What api and listener hold lives as long as a commit takes: longer than V8's young space of 16 MB at full load, so it
 * would be moved to the old one, and the collection of that is dear. Up to 48 MB more a process. As in the Dockerfile.
 */
const ROOM_FOR_BATCHES = ['--max-semi-space-size=32']

const EMBEDDED_BROKER = { source: 'emqx/embedded/main.ts', built: 'emqx/dist/main.js' }

const STOP_ORDER: readonly (readonly PartName[])[] = [['listener', 'listener-2'], ['broker'], ['authorizer'], ['api']]

function withPort(url: string, port: number | undefined): string {
  if (port === undefined) return url
  const changed = new URL(url)
  changed.port = String(port)
  return changed.href
}

interface CredentialRequest {
  readonly type: 'ares-credential-request'
  readonly id: string
}

function isCredentialRequest(message: unknown): message is CredentialRequest {
  if (typeof message !== 'object' || message === null) return false
  const { type, id } = message as Partial<CredentialRequest>
  return type === 'ares-credential-request' && typeof id === 'string'
}
