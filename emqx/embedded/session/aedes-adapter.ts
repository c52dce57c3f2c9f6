import { Readable } from 'node:stream'
import type { Message } from './message'

/**
 * aedes speaks the protocol; sessions, queues and delivery are ours. These two objects take the places where aedes would
 * keep messages (its persistence) and hand them out (its emitter), and lead to `BrokerState`.
 */
export interface BrokerState {
  hasPersistentSession(clientId: string): boolean
  /** The CONNACK is written: what waited may go out. */
  attach(client: AedesClient): void
  publish(message: Message, retain: boolean): void
  /** PUBACK or PUBCOMP */
  acknowledged(client: AedesClient, messageId: number): void
  /** PUBREC */
  received(client: AedesClient, messageId: number): void
}

/** What is used of aedes' client, beyond its declared type. */
export interface AedesClient {
  readonly id: string
}

export interface AedesPacket {
  readonly cmd?: string
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly messageId?: number
}

/**
 * aedes answers "session present" when there is a stored subscription. Ours are restored elsewhere, so it is shown this
 * one, which `authorizeSubscribe` turns down without a trace.
 */
export const SESSION_PRESENT = { topic: '$session', qos: 0 as const }

/** A refused publish under `deny_action = ignore` is acknowledged and goes here: nowhere. No client can name it. */
export const NOWHERE = '$nowhere\u0000'

type Done = (error?: Error | null) => void

export class DeliveryEmitter {
  readonly concurrency = 0

  constructor(private readonly state: BrokerState) {}

  on(_topic: string, _notify: unknown, done?: Done): void {
    done?.()
  }

  removeListener(_topic: string, _notify: unknown, done?: Done): void {
    done?.()
  }

  emit(packet: AedesPacket, done: Done): void {
    // Notices that aedes sends itself ($SYS/<broker id>/…) have no subscriber here.
    if (!packet.topic.startsWith('$SYS/') && packet.topic !== NOWHERE) {
      this.state.publish({ topic: packet.topic, payload: packet.payload, qos: packet.qos }, packet.retain)
    }
    done()
  }

  close(done: Done): void {
    setImmediate(done)
  }
}

/** aedes' persistence interface, with nothing in it but the wills and the inbound half of QoS 2. */
export class SessionPersistence {
  private readonly inbound = new Map<string, Map<number, AedesPacket>>()

  constructor(private readonly state: BrokerState) {}

  async setup(): Promise<void> {}

  async storeRetained(): Promise<void> {}

  createRetainedStreamCombi(): Readable {
    return Readable.from([])
  }

  async subscriptionsByClient(client: AedesClient): Promise<readonly (typeof SESSION_PRESENT)[]> {
    return this.state.hasPersistentSession(client.id) ? [SESSION_PRESENT] : []
  }

  async addSubscriptions(): Promise<void> {}
  async removeSubscriptions(): Promise<void> {}
  async cleanSubscriptions(): Promise<void> {}

  /** Asked for each QoS 1 and 2 publish: the same promise each time saves an allocation. */
  subscriptionsByTopic(): Promise<never[]> {
    return NO_SUBSCRIPTIONS
  }

  outgoingEnqueueCombi(): Promise<void> {
    return DONE
  }

  outgoingStream(client: AedesClient): Readable {
    this.state.attach(client)
    return Readable.from([])
  }

  /** aedes calls this for a PUBREC of a persistent session. */
  outgoingUpdate(client: AedesClient, packet: AedesPacket): Promise<void> {
    if (packet.cmd === 'pubrel' && packet.messageId !== undefined) this.state.received(client, packet.messageId)
    return DONE
  }

  outgoingClearMessageId(client: AedesClient, packet: AedesPacket): Promise<void> {
    if (packet.messageId !== undefined) this.state.acknowledged(client, packet.messageId)
    return DONE
  }

  async incomingStorePacket(client: AedesClient, packet: AedesPacket): Promise<void> {
    let packets = this.inbound.get(client.id)
    if (!packets) {
      packets = new Map()
      this.inbound.set(client.id, packets)
    }
    if (packet.messageId !== undefined) packets.set(packet.messageId, packet)
  }

  async incomingGetPacket(client: AedesClient, packet: AedesPacket): Promise<AedesPacket> {
    const found = this.inbound.get(client.id)?.get(packet.messageId ?? -1)
    if (!found) throw new Error('no such packet')
    return found
  }

  async incomingDelPacket(client: AedesClient, packet: AedesPacket): Promise<void> {
    const packets = this.inbound.get(client.id)
    packets?.delete(packet.messageId ?? -1)
    if (packets?.size === 0) this.inbound.delete(client.id)
  }

  async cleanIncoming(client: AedesClient): Promise<void> {
    this.inbound.delete(client.id)
  }

  // Wills are kept by aedes' client itself; this store would only serve a cluster.
  async putWill(): Promise<void> {}
  async delWill(): Promise<void> {}

  streamWill(): Readable {
    return Readable.from([])
  }

  async destroy(): Promise<void> {}
}

const DONE: Promise<void> = Promise.resolve()
const NO_SUBSCRIPTIONS: Promise<never[]> = Promise.resolve([])
