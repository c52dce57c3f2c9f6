import type { BrokerLogger } from '../logger'
import { lowerQos, type Message, type Qos } from './message'
import { RetainedMessages } from './retained-messages'
import { Router } from './router'
import { Session, type SessionLimits } from './session'
import type { Wire } from './wire'

export interface SessionRequest {
  readonly clientId: string
  readonly clean: boolean
  readonly limits: SessionLimits
  /** How long a persistent session outlives its connection, in milliseconds. */
  readonly expiryMs: number
}

/** All sessions, in memory, as EMQX's are by default: they end with the broker. */
export class Sessions {
  readonly retained = new RetainedMessages()
  readonly counts = { published: 0, unrouted: 0, dropped: 0 }

  private readonly router = new Router()
  private readonly sessions = new Map<string, Session>()
  private readonly expiries = new Map<Session, NodeJS.Timeout>()
  private lastDropLogged = 0

  constructor(private readonly logger: BrokerLogger) {}

  get size(): number {
    return this.sessions.size
  }

  get(clientId: string): Session | undefined {
    return this.sessions.get(clientId)
  }

  hasPersistent(clientId: string): boolean {
    return this.sessions.get(clientId)?.persistent === true
  }

  /** The session of a new connection: the one that waited for it, or a new one. Nothing is sent before `attach`. */
  open(request: SessionRequest): Session {
    const found = this.sessions.get(request.clientId)
    const persistent = !request.clean && request.expiryMs > 0
    if (found?.persistent && !request.clean && persistent) {
      this.keepAlive(found)
      return found
    }
    if (found) this.end(found)
    const session = new Session(request.clientId, persistent, request.limits, (full) => this.logDrop(full))
    this.sessions.set(request.clientId, session)
    return session
  }

  attach(session: Session, wire: Wire): void {
    session.attach(wire)
  }

  /** The connection is gone. What a session without persistence holds of a shared subscription goes to other members. */
  release(session: Session, expiryMs: number): void {
    session.detach()
    if (this.sessions.get(session.clientId) !== session) return
    if (!session.persistent) {
      this.end(session)
      return
    }
    const timer = setTimeout(() => this.end(session), Math.min(expiryMs, MAX_TIMER_MS))
    timer.unref()
    this.expiries.set(session, timer)
  }

  /** A kick: the session and all that it holds are gone, nothing is passed on (measured). False: no such session. */
  discard(clientId: string): boolean {
    const session = this.sessions.get(clientId)
    if (!session) return false
    this.forget(session)
    session.takeUndelivered()
    return true
  }

  subscribe(session: Session, filter: string, qos: Qos): void {
    session.subscriptions.set(filter, qos)
    this.router.subscribe(session, filter, qos)
  }

  /** Retained messages go to the one that has just subscribed, each time it does. */
  sendRetained(session: Session, filter: string, granted: Qos): void {
    for (const message of this.retained.matching(filter)) {
      const qos = lowerQos(message.qos, granted)
      session.deliver({ message, qos, retain: true, group: undefined })
    }
  }

  unsubscribe(session: Session, filter: string): void {
    if (session.subscriptions.delete(filter)) this.router.unsubscribe(session, filter)
  }

  publish(message: Message): void {
    this.counts.published++
    if (this.router.route(message) === 0) this.counts.unrouted++
  }

  get subscriptionCount(): number {
    let count = 0
    for (const session of this.sessions.values()) count += session.subscriptions.size
    return count
  }

  close(): void {
    for (const timer of this.expiries.values()) clearTimeout(timer)
    this.expiries.clear()
    this.sessions.clear()
  }

  private end(session: Session): void {
    this.forget(session)
    for (const { message, group } of session.takeUndelivered()) group?.dispatch(message)
  }

  private forget(session: Session): void {
    this.keepAlive(session)
    session.detach()
    for (const filter of session.subscriptions.keys()) this.router.unsubscribe(session, filter)
    session.subscriptions.clear()
    if (this.sessions.get(session.clientId) === session) this.sessions.delete(session.clientId)
  }

  private keepAlive(session: Session): void {
    clearTimeout(this.expiries.get(session))
    this.expiries.delete(session)
  }

  private logDrop(session: Session): void {
    this.counts.dropped++
    const now = Date.now()
    if (now - this.lastDropLogged < DROP_LOG_INTERVAL_MS) return
    this.lastDropLogged = now
    this.logger.warn('dropped_msg_due_to_mqueue_is_full', {
      clientid: session.clientId,
      queued: session.queued,
      dropped: session.dropped,
    })
  }
}

const DROP_LOG_INTERVAL_MS = 10_000
const MAX_TIMER_MS = 2 ** 31 - 1
