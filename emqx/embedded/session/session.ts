import { Fifo } from './fifo'
import { type Message, publishFrame, pubrelFrame, type Qos } from './message'
import type { ShareGroup } from './share-group'
import type { Wire } from './wire'

/** One message for one session. `group` is set when it came through a shared subscription. */
export interface Delivery {
  readonly message: Message
  readonly qos: Qos
  readonly retain: boolean
  readonly group: ShareGroup | undefined
}

interface InFlight extends Delivery {
  /** QoS 2: PUBREC has come, the message itself is not sent again. */
  released: boolean
}

export interface SessionLimits {
  /** Unacknowledged QoS 1 and 2 messages on the wire, 1 to 65,535. */
  readonly maxInflight: number
  /** Messages waiting behind them; beyond it the oldest is dropped, as EMQX does. 0: no limit. */
  readonly maxQueue: number
}

/**
 * A session of MQTT 3.1.1: its subscriptions, what is in flight, and what waits.
 *
 *   ATTACHED ──connection gone──▶ DETACHED ──connection back──▶ ATTACHED   (in flight is sent again, with DUP)
 *      │                             │
 *      └──clean session ends─────────┴──expiry──▶ ENDED   (shared messages go to other members of the group)
 *
 * A detached session goes on being given its share of a shared subscription: so does EMQX (measured).
 */
export class Session {
  /** Filter as subscribed (`$share/…` included) → QoS granted. */
  readonly subscriptions = new Map<string, Qos>()
  dropped = 0

  private wire: Wire | undefined
  private readonly inFlight = new Map<number, InFlight>()
  private readonly waiting = new Fifo<Delivery>()
  private lastMessageId = 0

  constructor(
    readonly clientId: string,
    /** Survives its connection. */
    readonly persistent: boolean,
    readonly limits: SessionLimits,
    private readonly onDrop: (session: Session) => void,
  ) {}

  get attached(): boolean {
    return this.wire !== undefined
  }

  get queued(): number {
    return this.waiting.length
  }

  get inflight(): number {
    return this.inFlight.size
  }

  attach(wire: Wire): void {
    this.wire = wire
    for (const [messageId, delivery] of this.inFlight) {
      if (delivery.released) wire.write(pubrelFrame(messageId))
      else wire.write(publishFrame(delivery.message, delivery.qos, messageId, { dup: true, retain: delivery.retain }))
    }
    this.refill()
  }

  detach(): void {
    this.wire = undefined
  }

  deliver(delivery: Delivery): void {
    if (this.wire && delivery.qos === 0) this.sendUnacknowledged(this.wire, delivery)
    else if (this.wire && this.inFlight.size < this.limits.maxInflight) this.send(this.wire, delivery)
    else this.enqueue(delivery)
  }

  /** PUBACK or PUBCOMP: the place in the window is free. */
  acknowledged(messageId: number): void {
    if (this.inFlight.delete(messageId)) this.refill()
  }

  /** PUBREC */
  received(messageId: number): void {
    const delivery = this.inFlight.get(messageId)
    if (delivery) delivery.released = true
  }

  /** Everything that has not been delivered, in order. The session is over afterwards. */
  takeUndelivered(): Delivery[] {
    const rest: Delivery[] = [...this.inFlight.values()].filter((delivery) => !delivery.released)
    this.inFlight.clear()
    return rest.concat(this.waiting.drain())
  }

  private enqueue(delivery: Delivery): void {
    this.waiting.push(delivery)
    if (this.limits.maxQueue === 0 || this.waiting.length <= this.limits.maxQueue) return
    this.waiting.shift()
    this.dropped++
    this.onDrop(this)
  }

  private refill(): void {
    while (this.wire && this.inFlight.size < this.limits.maxInflight) {
      const delivery = this.waiting.shift()
      if (!delivery) return
      if (delivery.qos === 0) this.sendUnacknowledged(this.wire, delivery)
      else this.send(this.wire, delivery)
    }
  }

  private send(wire: Wire, delivery: Delivery): void {
    const messageId = this.nextMessageId()
    this.inFlight.set(messageId, {
      message: delivery.message,
      qos: delivery.qos,
      retain: delivery.retain,
      group: delivery.group,
      released: false,
    })
    wire.write(publishFrame(delivery.message, delivery.qos, messageId, { dup: false, retain: delivery.retain }))
  }

  private sendUnacknowledged(wire: Wire, delivery: Delivery): void {
    if (wire.congested) {
      this.dropped++
      this.onDrop(this)
      return
    }
    wire.write(publishFrame(delivery.message, 0, 0, { dup: false, retain: delivery.retain }))
  }

  private nextMessageId(): number {
    do this.lastMessageId = (this.lastMessageId % 65_535) + 1
    while (this.inFlight.has(this.lastMessageId))
    return this.lastMessageId
  }
}
