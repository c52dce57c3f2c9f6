import { type GrpcServer, type OpsServer, startGrpcServer, startOpsServer } from '@ares/chassis'
import { CommandDeliveryServiceService } from '@ares/proto/commands/v1/commands'
import { commandDelivery } from './commands/command-delivery'
import type { ListenerConfig } from './config'
import { createContext, type ListenerContext } from './context'
import { createIngestMetrics } from './ingest/ingest-metrics'
import { LoadReport } from './ingest/load-report'
import { RenewalSink } from './ingest/renewal-sink'
import { ResponseSink } from './ingest/response-sink'
import { Router } from './ingest/router'
import { Reach, type Sink } from './ingest/sink'
import { StatusSink } from './ingest/status-sink'
import { TelemetrySink } from './ingest/telemetry-sink'
import { MqttSession } from './mqtt/session'
import { Peers } from './peers'
import { StandingAside } from './standing-aside'

/**
 * The listener: takes what devices publish, has api commit it, and acknowledges after that; brings commands to devices.
 * It keeps nothing: whatever is not committed is still the broker's.
 */
export class ListenerService {
  private session: MqttSession | undefined
  private sinks: readonly Sink[] = []
  private load: LoadReport | undefined
  private peers: Peers | undefined
  private standingAside: StandingAside | undefined
  private servers: { readonly ops: OpsServer; readonly grpc: GrpcServer } | undefined
  private fail: (error: Error) => void = () => undefined

  /** Rejects when the service cannot go on: another process has taken over its session. */
  readonly failed = new Promise<never>((_, reject) => {
    this.fail = reject
  })

  constructor(private readonly context: ListenerContext) {
    // Whoever waits hears it; nobody has to.
    this.failed.catch(() => undefined)
  }

  /** @throws what createContext throws */
  static async create(config: ListenerConfig): Promise<ListenerService> {
    return new ListenerService(await createContext(config))
  }

  /** Ports that were given, after start(). */
  get ports(): { readonly grpc: number; readonly ops: number } | undefined {
    return this.servers && { grpc: this.servers.grpc.port, ops: this.servers.ops.port }
  }

  /** Serves, and connects to the broker. A broker or an api that is away is no error: health says so. */
  async start(): Promise<void> {
    const { config, logger, identity, metrics, health } = this.context
    const session = this.openSession()
    this.session = session
    this.servers = {
      grpc: await startGrpcServer({
        identity,
        bind: config.grpcBind,
        logger,
        metrics,
        services: [{ definition: CommandDeliveryServiceService, implementation: commandDelivery(session) }],
        allow: { [CommandDeliveryServiceService.publish.path]: ['api'] },
      }),
      ops: await startOpsServer({ bind: config.opsBind, health, metrics, logger }),
    }
    logger.info('ready', { ports: this.ports, clientId: config.mqtt.clientId })
  }

  /** Takes nothing new, commits and acknowledges what is held, then leaves. */
  async stop(): Promise<void> {
    const { config, identity, api } = this.context
    this.standingAside?.stop()
    // Whoever api calls the keeper may have left: nobody to be heard is as good a reason to stay.
    const isKeeper = this.load?.isKeeper || !this.peers?.isAnyThere
    this.peers?.stop()
    if (!isKeeper) this.peers?.sayGoodbye()
    await this.session?.stop(() => this.drain(config.drainMs), isKeeper)
    this.load?.stop()
    for (const sink of this.sinks) sink.stop()
    await this.servers?.grpc.stop()
    await this.servers?.ops.stop()
    for (const client of Object.values(api)) client.close()
    await identity.stop()
  }

  private openSession(): MqttSession {
    const { config, logger, identity, metrics: registry, health, api } = this.context
    const metrics = createIngestMetrics(registry)
    const reach = new Reach()
    const parts = { limits: config.batch, metrics, logger, reach, deadlineMs: config.commitDeadlineMs }
    // The first message may come before this constructor returns, but never before the next tick.
    const telemetry = new TelemetrySink({
      ...parts,
      client: api.telemetry,
      listener: config.mqtt.clientId,
      tell: (messages) => session.tell(messages),
    })
    const status = new StatusSink({ ...parts, client: api.devices, deadLetters: telemetry })
    const responses = new ResponseSink({ ...parts, client: api.commands, deadLetters: telemetry })
    const renewals = new RenewalSink({
      client: api.devices,
      deadLetters: telemetry,
      publish: (topic, payload) => session.publishAcknowledged(topic, payload, { waitMs: ANSWER_LIMIT_MS }),
      metrics,
      logger,
    })
    // In this order: what the others cannot read ends up in telemetry.
    this.sinks = [renewals, status, responses, telemetry]
    const peers = new Peers({
      clientId: config.mqtt.clientId,
      session: {
        get problem() {
          return session.problem
        },
        tell: (messages) => session.tell(messages),
      },
      committedAt: () => reach.committedAt,
    })
    const router = new Router({ telemetry, status, responses, renewals, peers }, { metrics, logger })
    const session = new MqttSession(config.mqtt, {
      identity,
      logger,
      onDelivery: (delivery) => router.route(delivery),
      onReconnect: () => metrics.reconnects.inc(),
      onClosed: () => {
        const most = { items: config.mqtt.receiveMaximum, bytes: config.mqtt.maxHeldBytes }
        for (const sink of [status, responses, telemetry]) sink.trim(most)
      },
      onFailure: (error) => this.fail(error),
    })
    health.check('mqtt', () => ({
      ok: session.problem === undefined,
      detail: session.problem ?? `MQTT ${session.version}`,
    }))
    health.check('ingest', () => ingestState(session, reach, config.heldAlarmMs))
    metrics.observeHeld(() => session.held)
    this.load = new LoadReport({
      client: api.telemetry,
      listener: config.mqtt.clientId,
      window: config.mqtt.receiveMaximum,
      session: () => ({
        isUp: session.problem === undefined,
        heldMessages: session.held.messages,
        oldestReceivedAt: session.oldestReceivedAt,
      }),
      committed: () => reach.committed,
    })
    this.load.start()
    this.peers = peers
    peers.start()
    this.standingAside = new StandingAside({ afterMs: config.standAsideAfterMs, session, reach, peers, logger })
    this.standingAside.start()
    return session
  }

  /** @returns whether everything is committed and acknowledged within the limit */
  private async drain(limitMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const limit = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), limitMs)
    })
    const drained = (async () => {
      for (const sink of this.sinks) await sink.drain()
      // The acknowledgements themselves go out in the next turn.
      await new Promise((resolve) => setImmediate(resolve))
      return this.session?.held.messages === 0
    })()
    const result = await Promise.race([drained, limit])
    clearTimeout(timer)
    return result
  }
}

/** How long the broker may take for the PUBACK of an answer to a device. */
const ANSWER_LIMIT_MS = 5_000

/** Not well: api does not answer, or the oldest message has been waiting for too long. */
function ingestState(session: MqttSession, reach: Reach, alarmMs: number): { ok: boolean; detail: string } {
  const heldForMs = session.oldestReceivedAt ? Date.now() - session.oldestReceivedAt : 0
  const held = `${session.held.messages} messages held, the oldest for ${(heldForMs / 1_000).toFixed(1)} s`
  if (reach.problem) return { ok: false, detail: `${reach.problem}; ${held}` }
  return { ok: heldForMs <= alarmMs, detail: held }
}
