import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Aedes, AuthenticateError, Client } from 'aedes'
import type { LoadedConf } from './conf/conf-file'
import { HttpAuthenticator } from './hooks/authentication'
import { Authorization } from './hooks/authorization'
import { Webhook } from './hooks/webhook'
import type { BrokerLogger } from './logger'
import { type Origin, Peer } from './peer'
import {
  type AedesClient,
  type BrokerState,
  DeliveryEmitter,
  NOWHERE,
  SESSION_PRESENT,
  SessionPersistence,
} from './session/aedes-adapter'
import type { Qos } from './session/message'
import type { Session } from './session/session'
import { Sessions } from './session/sessions'
import { Wire } from './session/wire'

/**
 * The broker behind the listeners: aedes for the protocol, the webhooks of emqx.conf for every decision, `Sessions` for
 * everything that is kept and delivered.
 */
export class Broker implements BrokerState {
  readonly sessions: Sessions
  readonly webhooks: readonly Webhook[]
  readonly startedAt = new Date()

  private aedes: Aedes | undefined
  private readonly authenticators: readonly HttpAuthenticator[]
  private readonly authorization: Authorization
  private readonly origins = new WeakMap<Duplex, Origin>()
  private readonly connections = new WeakMap<AedesClient, Connection>()
  private readonly connected = new Map<string, Connection>()

  constructor(
    private readonly loaded: LoadedConf,
    private readonly logger: BrokerLogger,
  ) {
    const { authentication, authorization } = loaded.conf
    this.sessions = new Sessions(logger)
    const authn = authentication.filter((hook) => hook.enable).map((hook) => new Webhook('authn', hook, logger))
    const sources = authorization.sources.filter((hook) => hook.enable)
    const authz = sources.map((hook) => new Webhook('authz', hook, logger))
    this.webhooks = [...authn, ...authz]
    const enabled = authentication.filter((hook) => hook.enable)
    this.authenticators = authn.map((hook, i) => new HttpAuthenticator(hook, enabled[i]?.body ?? {}))
    this.authorization = new Authorization(authorization, authz[0], logger)
  }

  async start(): Promise<void> {
    const { mqtt } = this.loaded.conf
    // Not a static import: run from source, tsx would rewrite aedes for require(), which costs a fifth of its speed.
    const { Aedes } = await import('aedes')
    const aedes = new Aedes({
      mq: new DeliveryEmitter(this),
      persistence: new SessionPersistence(this),
      connectTimeout: mqtt.idle_timeout,
      maxTopicLevels: Math.min(mqtt.max_topic_levels, 100),
      maxInflightInbound: Number.isFinite(mqtt.max_awaiting_rel) ? mqtt.max_awaiting_rel : 0,
      // Packets that a client sends behind its CONNECT wait while the authenticator is asked.
      queueLimit: 10_000,
      preConnect: (client, packet, done) => {
        const id = packet.clientId || (packet.clean === false ? '' : randomBytes(12).toString('base64url'))
        packet.clientId = id
        this.meet(client, id, packet.keepalive ?? 0, packet.clean !== false)
        done(null, true)
      },
      authenticate: (client, username, password, done) => {
        this.admit(client, username, password).then(
          (refusal) => done(refusal ?? null, refusal === undefined),
          (error: Error) => done(Object.assign(error, { returnCode: 3 }), null),
        )
      },
      authorizePublish: (client, packet, done) => this.checkPublish(client, packet, done),
      authorizeSubscribe: (client, subscription, done) => {
        if ((subscription as unknown) === SESSION_PRESENT) return done(null, null)
        this.checkSubscribe(client, subscription.topic, subscription.qos, (granted) =>
          done(null, granted ? subscription : null),
        )
      },
    })
    aedes.on('client', (client) => this.open(client))
    aedes.on('clientReady', (client) => this.ready(client))
    aedes.on('clientDisconnect', (client) => this.release(client))
    aedes.on('subscribe', (subscriptions, client) => {
      const session = this.connections.get(client)?.session
      if (!session) return
      for (const { topic, qos } of subscriptions) {
        if (Number(qos) === SUBACK_FAILURE) continue
        this.sessions.subscribe(session, topic, qos as Qos)
        this.sessions.sendRetained(session, topic, qos as Qos)
      }
    })
    aedes.on('unsubscribe', (filters, client) => {
      const session = this.connections.get(client)?.session
      // A clean session that is closing reports all its filters too; it ends as a whole, and hands over what it holds.
      if (!session || client.closed) return
      for (const filter of filters) this.sessions.unsubscribe(session, filter)
    })
    aedes.on('clientError', (client, error) =>
      this.logger.debug('client error', { clientid: client.id, reason: error.message }),
    )
    aedes.on('connectionError', (_client, error) => this.logger.debug('connection error', { reason: error.message }))
    await aedes.listen()
    this.aedes = aedes
  }

  /** A connection from a listener, TLS done. */
  handle(stream: Duplex, origin: Origin): void {
    this.origins.set(stream, origin)
    this.aedes?.handle(stream)
  }

  get connectionCount(): number {
    return this.connected.size
  }

  /** Connected clients, and sessions that wait for theirs. */
  client(clientId: string): { readonly peer: Peer | undefined; readonly session: Session } | undefined {
    const session = this.sessions.get(clientId)
    return session && { peer: this.connected.get(clientId)?.peer, session }
  }

  clientIds(): string[] {
    return [...this.connected.keys()]
  }

  /** Cuts the connection and deletes the session with all it holds. False: there is no such client. */
  kick(clientId: string): boolean {
    const known = this.sessions.discard(clientId)
    const connection = this.connected.get(clientId)
    connection?.client.close()
    if (known || connection) this.logger.info('kicked', { clientid: clientId })
    return known || connection !== undefined
  }

  async stop(): Promise<void> {
    await new Promise<void>((resolve) => (this.aedes ? this.aedes.close(() => resolve()) : resolve()))
    for (const hook of this.webhooks) hook.close()
    this.sessions.close()
  }

  // What the adapters of aedes ask for.

  hasPersistentSession(clientId: string): boolean {
    return this.sessions.hasPersistent(clientId)
  }

  publish(message: { topic: string; payload: Buffer; qos: Qos }, retain: boolean): void {
    if (retain && this.loaded.conf.retainer.enable) this.sessions.retained.keep(message)
    this.sessions.publish(message)
  }

  acknowledged(client: AedesClient, messageId: number): void {
    this.connections.get(client)?.session?.acknowledged(messageId)
  }

  received(client: AedesClient, messageId: number): void {
    this.connections.get(client)?.session?.received(messageId)
  }

  attach(client: AedesClient): void {
    const connection = this.connections.get(client)
    if (connection?.session) this.sessions.attach(connection.session, new Wire(connection.client.conn))
  }

  private meet(client: Client, clientId: string, keepalive: number, clean: boolean): void {
    const origin = this.origins.get(client.conn)
    if (origin) this.connections.set(client, { client, peer: new Peer(origin, clientId, keepalive, clean) })
  }

  /** Undefined: let in. */
  private async admit(
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
  ): Promise<AuthenticateError | undefined> {
    const peer = this.connections.get(client)?.peer
    if (!peer) return refusal(3, 'the connection is not known')
    const { max_clientid_len, peer_cert_as_username } = peer.zone
    if (peer.clientId === '' || Buffer.byteLength(peer.clientId) > max_clientid_len) {
      return refusal(2, 'client identifier not valid')
    }
    peer.username = peer_cert_as_username === 'cn' && peer.commonName !== '' ? peer.commonName : username
    if (!peer.enableAuthn || this.authenticators.length === 0) return undefined
    for (const authenticator of this.authenticators) {
      const verdict = await authenticator.authenticate(peer, password)
      if (verdict.kind === 'refuse') return this.refused(peer, verdict.returnCode, verdict.reason)
      if (verdict.kind === 'ignore') {
        this.logger.debug('authenticator ignored', { clientid: peer.clientId, reason: verdict.reason })
        continue
      }
      peer.superuser = verdict.superuser
      peer.acl = verdict.acl
      if (verdict.expireAt !== undefined) this.endAt(client, peer, verdict.expireAt * 1000)
      return undefined
    }
    return this.refused(peer, 5, 'not_authorized')
  }

  private refused(peer: Peer, returnCode: 4 | 5, reason: string): AuthenticateError {
    const { clientId, username, host, listener } = peer
    this.logger.warn('authentication_failure', { clientid: clientId, username, peerhost: host, listener, reason })
    return refusal(returnCode, reason)
  }

  /** `expire_at`: the connection ends then, however far away that is (a timer holds 24 days at most). */
  private endAt(client: Client, peer: Peer, atMs: number): void {
    const leftMs = atMs - Date.now()
    peer.expiry = setTimeout(
      () => {
        if (client.closed) return
        if (leftMs > MAX_TIMER_MS) return this.endAt(client, peer, atMs)
        this.logger.info('disconnected: the time of its credentials is over', { clientid: peer.clientId })
        client.close()
      },
      Math.min(Math.max(leftMs, 0), MAX_TIMER_MS),
    )
    peer.expiry.unref()
    client.conn.once('close', () => clearTimeout(peer.expiry))
  }

  private open(client: Client): void {
    const connection = this.connections.get(client)
    if (!connection) return
    const { zone, clientId } = connection.peer
    connection.session = this.sessions.open({
      clientId,
      clean: client.clean,
      limits: {
        maxInflight: zone.max_inflight,
        maxQueue: Number.isFinite(zone.max_mqueue_len) ? zone.max_mqueue_len : 0,
      },
      expiryMs: zone.session_expiry_interval,
    })
    this.connected.set(clientId, connection)
  }

  private ready(client: Client): void {
    const peer = this.connections.get(client)?.peer
    if (!peer) return
    this.logger.debug('connected', { clientid: peer.clientId, username: peer.username, listener: peer.listener })
  }

  private release(client: Client): void {
    const connection = this.connections.get(client)
    if (!connection?.session) return
    if (this.connected.get(connection.peer.clientId) === connection) this.connected.delete(connection.peer.clientId)
    this.sessions.release(connection.session, connection.peer.zone.session_expiry_interval)
  }

  private checkPublish(
    client: Client | null,
    packet: { topic: string; qos: number; retain: boolean },
    done: (error?: Error | null) => void,
  ): void {
    const connection = client && this.connections.get(client)
    if (!connection) {
      done(new Error('not authorized'))
      return
    }
    const will = connection.client.closed
    const action = { kind: 'publish' as const, topic: packet.topic, qos: packet.qos, retain: packet.retain }
    this.authorization.authorize(connection.peer, action, (allowed) => {
      if (allowed) return done(null)
      const { clientId } = connection.peer
      const denial = { clientid: clientId, topic: packet.topic, reason: 'not_authorized' }
      if (will) {
        this.logger.warn('last_will_testament_publish_denied', denial)
        return done(new Error('not authorized'))
      }
      this.logger.warn('cannot_publish_to_topic_due_to_not_authorized', denial)
      if (this.loaded.conf.authorization.deny_action === 'disconnect') return done(new Error('not authorized'))
      // [MQTT-3.3.5-2] leaves two ways for 3.1.1: close, or acknowledge what is thrown away. EMQX does the second.
      packet.topic = NOWHERE
      packet.retain = false
      done(null)
    })
  }

  private checkSubscribe(client: Client, topic: string, qos: number, done: (granted: boolean) => void): void {
    const connection = this.connections.get(client)
    if (!connection) {
      done(false)
      return
    }
    const action = { kind: 'subscribe' as const, topic, qos, retain: false }
    this.authorization.authorize(connection.peer, action, (allowed) => {
      if (allowed) return done(true)
      this.logger.warn('authorization_permission_denied', { clientid: connection.peer.clientId, topic })
      if (this.loaded.conf.authorization.deny_action === 'disconnect') client.close()
      else done(false)
    })
  }
}

interface Connection {
  readonly client: Client
  readonly peer: Peer
  session?: Session
}

const SUBACK_FAILURE = 128
const MAX_TIMER_MS = 2 ** 31 - 1

function refusal(returnCode: number, reason: string): AuthenticateError {
  return Object.assign(new Error(reason), { returnCode }) as AuthenticateError
}
