import * as net from 'node:net'
import { PassThrough } from 'node:stream'
import * as tls from 'node:tls'
import type { LeafSource, Logger } from '@ares/chassis'
import type { ErrorWithReasonCode } from 'mqtt'
import { type Delivery, HoldingClient } from './holding-client'
import { ReconnectPace } from './reconnect-pace'
import { PEERS, SUBSCRIPTIONS } from './subscriptions'

/**
 * The one session with the broker.
 *
 *   CONNECTING ──CONNACK──▶ SUBSCRIBING ──SUBACK──▶ UP ──stop()──▶ LEAVING ──drained──▶ ENDED
 *        ▲                      │                   │
 *        └──────closed──────────┴──────closed───────┤        (MQTT.js reconnects, at our pace)
 *                                                   └──taken over (DISCONNECT 142)──▶ FAILED
 *
 * It is of the group, or stands aside (`moveTo`): then it hears the other listeners and nothing else. Each change is a new
 * session on a new connection.
 *
 * `connect` happens once, in the constructor of MQTT.js; every further connection is MQTT.js's own doing. What a new
 * connection needs (certificate, protocol version) is read when its stream is built.
 */
export class MqttSession {
  private readonly client: HoldingClient
  private readonly pace = new ReconnectPace()
  private subscribed = false
  private everSubscribed = false
  private left = false
  private place: Place = 'group'
  private failure: Error | undefined
  private retry: NodeJS.Timeout | undefined
  private stopRenewals: () => void = () => undefined
  /** Of the certificate that the current connection was made with. */
  private shownSerial: string | undefined
  /** Sessions that ended before they were of use, one after the other. */
  private shortLived = 0

  constructor(
    private readonly settings: MqttSettings,
    private readonly parts: SessionParts,
  ) {
    const { version } = settings
    this.client = new HoldingClient(
      () => this.openStream(),
      {
        clientId: settings.clientId,
        // MQTT.js would put together a debug line several times a message, also when nobody reads it.
        log: () => undefined,
        protocolVersion: version === '3.1.1' ? 4 : 5,
        clean: false,
        keepalive: settings.keepaliveSeconds ?? 30,
        connectTimeout: 10_000,
        reconnectPeriod: this.pace.next(),
        // A refusal (the authorizer is away, the broker speaks 3.1.1 only) is no reason to give up.
        reconnectOnConnackError: true,
        // Subscriptions are renewed here, with their answer looked at.
        resubscribe: false,
        // A receipt that waits for a connection is late already: the device has sent the report again.
        queueQoSZero: false,
        properties: {
          sessionExpiryInterval: Math.max(1, Math.round(settings.sessionExpiryMs / 1_000)),
          receiveMaximum: settings.receiveMaximum,
        },
      },
      { maxHeld: settings.receiveMaximum, maxHeldBytes: settings.maxHeldBytes, onDelivery: parts.onDelivery },
    )
    this.watch()
  }

  /** Messages held now, see HoldingClient. */
  get held(): HoldingClient['held'] {
    return this.client.held
  }

  get oldestReceivedAt(): number | undefined {
    return this.client.oldestReceivedAt
  }

  /** What is wrong with the session, undefined when it is up and subscribed. */
  get problem(): string | undefined {
    if (this.failure) return this.failure.message
    if (this.left) return 'this listener has left its group'
    if (!this.client.connected) return `no connection with ${this.settings.url}`
    if (this.place === 'aside') return 'this listener stands aside: it cannot commit, and another one can'
    return this.subscribed ? undefined : 'connected, subscriptions not granted yet'
  }

  /** '5' or '3.1.1', as of the current or the next connection. */
  get version(): '5' | '3.1.1' {
    return this.client.options.protocolVersion === 5 ? '5' : '3.1.1'
  }

  /**
   * Publishes at QoS 1: a command, an answer. @returns whether a session took it
   * @throws NoSession when there is none, or the broker does not answer in time (it may still deliver)
   */
  async publishAcknowledged(
    topic: string,
    payload: string,
    limits: { expirySeconds?: number; waitMs: number },
  ): Promise<boolean> {
    if (!this.client.connected) throw new NoSession('the listener has no session with the broker')
    const expiry = this.version === '5' ? limits.expirySeconds : undefined
    const late = new NoSession('the broker has not acknowledged in time; it may still arrive')
    return within(this.client.publishAcknowledged(topic, payload, expiry), limits.waitMs, late)
  }

  /** Tells devices something at QoS 0, in one write. Without a connection it is dropped: see queueQoSZero. */
  tell(messages: ReadonlyArray<{ readonly topic: string; readonly payload: string }>): void {
    if (!this.client.connected || messages.length === 0) return
    const { stream } = this.client
    stream.cork()
    for (const { topic, payload } of messages) this.client.publish(topic, payload, { qos: 0 }, ignoreError)
    stream.uncork()
  }

  /**
   * Into the group, or aside. Going aside ends the session: the broker gives the others what was in it,
   * unacknowledged and queued, and from now on its share. Where no property can say that (MQTT 3.1.1), the clean session
   * that follows does [MQTT-3.1.2-6]; the embedded broker hands over then.
   */
  moveTo(place: Place): void {
    if (this.left || this.failure || place === this.place) return
    this.place = place
    this.subscribed = false
    this.everSubscribed = false
    this.client.options.clean = place === 'aside'
    if (this.client.connected) this.client.endSession()
  }

  /**
   * Ends the session for good. First no new message is taken: by leaving the group, so that the broker gives all to
   * the others, or (`leaveGroup` off, for an only listener that comes back) by not looking at them. Then `drain` waits
   * until what is held is committed and acknowledged. Only if that worked the session is given up at the broker:
   * otherwise it is kept, and what is in it comes back at the next start or goes to the others when it expires.
   * @param isKeeper this listener is the one of all that has to stay in the group (see ReportLoadResponse.has_keeper)
   */
  async stop(drain: () => Promise<boolean>, isKeeper = false): Promise<void> {
    const { leaveGroup } = this.settings
    const leaves = leaveGroup === 'unless_keeper' ? !isKeeper : leaveGroup
    this.left = true
    this.stopRenewals()
    clearTimeout(this.retry)
    if (this.failure) return
    if (leaves) await this.unsubscribe()
    else this.client.turnAway()
    const drained = await drain()
    const properties = this.version === '5' ? { properties: this.expiryAtEnd(leaves && drained, isKeeper) } : {}
    if (!this.client.connected) await this.client.endAsync(true)
    else await this.endWithin(END_LIMIT_MS, properties)
    if (!drained) this.parts.logger.warn('stopped with messages that are not committed; the broker still has them')
  }

  /** The keeper's session outlives the others': while nobody is there, the broker queues in it [MQTT-3.14.2-2]. */
  private expiryAtEnd(isOver: boolean, isKeeper: boolean): { sessionExpiryInterval?: number } {
    if (isOver) return { sessionExpiryInterval: 0 }
    if (!isKeeper) return {}
    return { sessionExpiryInterval: Math.max(KEEPER_EXPIRY_S, Math.round(this.settings.sessionExpiryMs / 1_000)) }
  }

  private watch(): void {
    const { client } = this
    const { logger } = this.parts
    let beganAt = 0
    client.on('connect', ({ sessionPresent }) => {
      beganAt = Date.now()
      this.pace.began()
      logger.info('connected to the broker', { url: this.settings.url, version: this.version, sessionPresent })
      if (sessionPresent && this.everSubscribed) this.subscribed = true
      else this.subscribe()
    })
    client.on('offline', () => {
      this.subscribed = false
      this.shortLived = Date.now() - beganAt < SHORT_LIFE_MS && beganAt > 0 ? this.shortLived + 1 : 0
      if (this.shortLived === SHORT_LIVES_TOLD) {
        logger.error(
          `the broker has ended ${SHORT_LIVES_TOLD} sessions in a row after a moment. Perhaps another process uses the client id ${this.settings.clientId}: give each listener its own ARES_LISTENER_INSTANCE`,
        )
      }
      // MQTT.js reads the period right after this event.
      client.options.reconnectPeriod = this.pace.next()
    })
    client.on('reconnect', () => {
      this.parts.onReconnect()
      client.options.reconnectPeriod = this.pace.next()
    })
    client.on('close', () => {
      this.subscribed = false
      clearTimeout(this.retry)
      this.parts.onClosed()
    })
    client.on('error', (error) => this.explain(error as NodeJS.ErrnoException | ErrorWithReasonCode))
    client.on('disconnect', ({ reasonCode }) => {
      if (reasonCode === SESSION_TAKEN_OVER) this.giveUp()
      else logger.warn('the broker ended the connection', { reasonCode })
    })
    this.stopRenewals = this.parts.identity.onRenewed(({ serial }) => {
      // Told for a new CA bundle as well: that one serves the next connection and is no reason to make one now.
      if (serial !== this.shownSerial) void this.refresh()
    })
  }

  private explain(error: NodeJS.ErrnoException | ErrorWithReasonCode): void {
    const refused = error.code === V3_UNACCEPTABLE_VERSION || error.code === V5_UNSUPPORTED_VERSION
    if (refused && this.version === '5' && this.settings.version === 'auto') {
      this.parts.logger.info('the broker does not speak MQTT 5, the next try is with 3.1.1')
      this.client.options.protocolVersion = 4
      return
    }
    this.parts.logger.warn('no connection with the broker, trying again', {
      url: this.settings.url,
      reason: error.message,
      code: error.code,
      nextTryMs: this.client.options.reconnectPeriod,
    })
  }

  private subscribe(waitMs = 1_000): void {
    const { client } = this
    const { stream } = client
    const filters = this.place === 'aside' ? [PEERS] : [...SUBSCRIPTIONS]
    client.subscribe(filters, { qos: 1 }, (error) => {
      // An answer for a connection that is gone: the next one subscribes itself.
      if (client.stream !== stream || !client.connected) return
      if (!error) {
        this.subscribed = true
        this.everSubscribed = true
        this.parts.logger.info('subscribed', { filters })
        return
      }
      this.parts.logger.error('the broker does not grant the subscriptions, trying again', {
        reason: error.message,
        waitMs,
      })
      this.retry = setTimeout(() => this.subscribe(Math.min(waitMs * 2, 30_000)), waitMs)
    })
  }

  /** Another process connected with our client id: to reconnect would throw it out, and so on for ever (lesson 4). */
  private giveUp(): void {
    this.failure = new Error(
      `another process uses the MQTT client id ${this.settings.clientId}: the broker gave it our session. Give each listener its own ARES_LISTENER_INSTANCE; this one stops`,
    )
    this.parts.logger.error(this.failure.message, { clientId: this.settings.clientId })
    this.client.end(true)
    this.parts.onFailure(this.failure)
  }

  /**
   * Moves to a connection with the new certificate: the broker may end the old one when its certificate ends. Nothing
   * new is taken, what is held is committed and acknowledged, then the connection is closed and MQTT.js comes back in
   * 100 ms. The session stays at the broker with all that was not taken or not acknowledged, and it delivers it again.
   */
  private async refresh(): Promise<void> {
    const { client } = this
    const { stream } = client
    if (!client.connected || this.left) return
    client.turnAway()
    const isGone = () => client.stream !== stream || !client.connected
    await this.waitUntil(() => client.held.messages === 0 || isGone(), REFRESH_LIMIT_MS)
    if (isGone()) return
    this.parts.logger.info('reconnecting with the renewed certificate')
    stream.end()
    await this.waitUntil(isGone, END_LIMIT_MS)
    if (!isGone()) stream.destroy()
  }

  private async unsubscribe(): Promise<void> {
    if (!this.client.connected) return
    const late = new Error(`no answer in ${UNSUBSCRIBE_LIMIT_MS} ms`)
    await within(this.client.unsubscribeAsync([...SUBSCRIPTIONS]), UNSUBSCRIBE_LIMIT_MS, late).catch((error: Error) => {
      this.parts.logger.warn('the broker has not confirmed the end of the subscriptions', { reason: error.message })
    })
  }

  private async endWithin(limitMs: number, options: object): Promise<void> {
    const timer = setTimeout(() => this.client.stream.destroy(), limitMs)
    await this.client.endAsync(false, options)
    clearTimeout(timer)
  }

  private async waitUntil(condition: () => boolean, limitMs: number): Promise<void> {
    for (const end = Date.now() + limitMs; Date.now() < end && !condition(); ) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  /** Opens the connection. What it throws must not end the process in MQTT.js's timer: it becomes an error of the stream. */
  private openStream(): net.Socket {
    const { protocol, hostname, port } = new URL(this.settings.url)
    const host = hostname.replace(/^\[|\]$/g, '')
    try {
      if (protocol === 'mqtt:') return net.connect({ host, port: Number(port || 1883), noDelay: true })
      const { chainPem, keyPem, caPem, serial } = this.parts.identity.current()
      this.shownSerial = serial
      const socket = tls.connect({
        host,
        port: Number(port || 8883),
        ...(net.isIP(host) ? {} : { servername: host }),
        cert: chainPem,
        key: keyPem,
        ca: caPem,
        minVersion: 'TLSv1.2',
        rejectUnauthorized: true,
      })
      return socket.setNoDelay(true)
    } catch (error) {
      const dead = new PassThrough()
      process.nextTick(() => dead.destroy(error as Error))
      return dead as unknown as net.Socket
    }
  }
}

/** `aside`: with a connection, and without a share of the messages. */
export type Place = 'group' | 'aside'

/** There is nobody to take the command. */
export class NoSession extends Error {
  override readonly name = 'NoSession'
}

export interface MqttSettings {
  /** mqtts://host:port; mqtt:// only for this machine. */
  readonly url: string
  readonly version: 'auto' | '5' | '3.1.1'
  readonly clientId: string
  /** How long the broker keeps the session of a listener that is gone (MQTT 5). */
  readonly sessionExpiryMs: number
  /** Messages that may be unacknowledged at once. */
  readonly receiveMaximum: number
  readonly maxHeldBytes: number
  /** Whether stop() gives the shared subscriptions back. false for an only listener that is restarted. */
  readonly leaveGroup: boolean | 'unless_keeper'
  readonly keepaliveSeconds?: number
}

export interface SessionParts {
  readonly identity: LeafSource
  readonly logger: Logger
  readonly onDelivery: (delivery: Delivery) => void
  readonly onReconnect: () => void
  /** The connection has closed; what was not acknowledged is the broker's again. */
  readonly onClosed: () => void
  /** The session is lost and will not come back. */
  readonly onFailure: (error: Error) => void
}

// MQTT 5 section 3.14.2.1, 3.2.2.2; MQTT 3.1.1 section 3.2.2.3
const SESSION_TAKEN_OVER = 142
const V5_UNSUPPORTED_VERSION = 132
const V3_UNACCEPTABLE_VERSION = 1

const UNSUBSCRIBE_LIMIT_MS = 2_000
const END_LIMIT_MS = 2_000
/** As the zone of the services in emqx.conf: longer than a restart of every listener at once. */
const KEEPER_EXPIRY_S = 90
const REFRESH_LIMIT_MS = 5_000
const SHORT_LIFE_MS = 2_000
const SHORT_LIVES_TOLD = 5

const ignoreError = () => undefined

/** @throws late when the work takes longer */
async function within<T>(work: Promise<T>, limitMs: number, late: Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late), limitMs)
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}
