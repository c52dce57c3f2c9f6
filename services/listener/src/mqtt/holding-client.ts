import { type IClientOptions, type IPublishPacket, MqttClient, type Packet } from 'mqtt'

/**
 * HoldingClient: MQTT.js that acknowledges when we say so.
 *
 * MQTT.js acknowledges a message before it looks at the next one: a handler that waits for a commit gets 177 messages a
 * second. Here the parser goes on, and the acknowledgement of each message is held:
 *
 *   RECEIVED ──onDelivery──▶ HELD ──settle()──▶ SETTLED ──all before it are settled──▶ ACKNOWLEDGED
 *                              └───connection closed───▶ FORGOTTEN     (the broker delivers it again)
 *
 * - Acknowledgements go out in the order of receipt [MQTT-4.6.0-2], whatever the order of the commits.
 * - One of a closed connection is never sent on another: packet ids begin anew, it would acknowledge a stranger.
 * - QoS 0 needs none, but counts as held until it is settled: it takes memory like the others.
 * - QoS 2 is delivered at its PUBLISH and its PUBREC is held, so that a process that dies before the commit is given the
 *   message again. A PUBLISH that comes again after the commit is answered and not delivered [MQTT-4.3.3-10]. MQTT.js
 *   itself would send PUBREC at once and keep the only copy in memory.
 * - More than `maxHeld` messages or `maxHeldBytes` of payload: the socket is not read until some are settled, so TCP slows
 *   the broker. MQTT 5 brokers stop before that, at receiveMaximum; mosquitto was seen to overrun it.
 *
 * It stands on private parts of MQTT.js (`_sendPacket`, how the handlers call it). The version is pinned, and
 * `holding-client.contract.test.ts` fails when they change.
 */
export class HoldingClient extends MqttClient {
  private readonly acks = new AckQueue()
  private readonly limits: HoldingLimits
  private readonly deliver: (delivery: Delivery) => void
  /** Goes on with parsing; set while reading is stopped. */
  private goOn: (() => void) | undefined
  private heldMessages = 0
  private heldBytes = 0
  private generation = 0
  private turningAway = false
  /** QoS 2 messages that are committed and not yet released by the broker (PUBREL). */
  private readonly committedQos2 = new Set<number>()
  /** Ids of our own messages that the broker took without having anybody for them. */
  private readonly untaken = new Set<number>()

  constructor(
    streamBuilder: ConstructorParameters<typeof MqttClient>[0],
    options: IClientOptions,
    holding: HoldingLimits & { readonly onDelivery: (delivery: Delivery) => void },
  ) {
    super(streamBuilder, options)
    this.limits = holding
    this.deliver = holding.onDelivery
    this.holdAcknowledgements()
    this.on('connect', (connack) => {
      if (!connack.sessionPresent) this.committedQos2.clear()
    })
    this.on('close', () => this.forget())
    this.on('packetreceive', (packet) => {
      if (packet.cmd === 'puback' && packet.reasonCode === NO_MATCHING_SUBSCRIBERS) {
        this.untaken.add(packet.messageId ?? 0)
      }
    })
    // Without a listener an 'error' would end the process; the session has its own, this one keeps tests and tools safe.
    this.on('error', () => undefined)
  }

  /** Messages that are delivered and not settled, and the bytes of their payloads. */
  get held(): { readonly messages: number; readonly bytes: number } {
    return { messages: this.heldMessages, bytes: this.heldBytes }
  }

  /** When the oldest message that is not yet acknowledged came, epoch milliseconds; undefined when there is none. */
  get oldestReceivedAt(): number | undefined {
    return this.acks.oldest
  }

  /** True while the socket is not read because too much is held. */
  get isReadingStopped(): boolean {
    return this.goOn !== undefined
  }

  /** From now until the connection closes, new messages are neither delivered nor acknowledged: the broker keeps them. */
  turnAway(): void {
    this.turningAway = true
  }

  /** Closes the connection, and of MQTT 5 the session with it [MQTT 5, 3.14.2.2.2]. MQTT.js comes back as from any cut. */
  endSession(): void {
    const properties = { sessionExpiryInterval: 0 }
    if (this.options.protocolVersion === 5) this.inside._writePacket({ cmd: 'disconnect', reasonCode: 0, properties })
    this.stream.end()
  }

  /**
   * Publishes at QoS 1 and waits for the broker's PUBACK.
   * @returns whether a session took the message; true where the broker cannot say (MQTT 3.1.1)
   */
  async publishAcknowledged(topic: string, payload: string, expirySeconds?: number): Promise<boolean> {
    const properties = expirySeconds === undefined ? undefined : { messageExpiryInterval: expirySeconds }
    // What MQTT.js hands back is the packet that was sent, not the PUBACK: the reason code has to be noted on its way in.
    const sent = await this.publishAsync(topic, payload, { qos: 1, properties })
    return !this.untaken.delete(sent?.messageId ?? 0)
  }

  /** Called by MQTT.js for each PUBLISH of QoS 0 and 1, and at the PUBREL of QoS 2, which has been delivered by then. */
  override handleMessage(packet: IPublishPacket, callback: (error?: Error) => void): void {
    if (packet.qos === 2) callback()
    else this.take(packet, callback)
  }

  /** While we do not read, the missing PINGRESP says nothing about the broker; the pings themselves still go out. */
  override onKeepaliveTimeout(): void {
    if (this.isReadingStopped) this.reschedulePing(true)
    else super.onKeepaliveTimeout()
  }

  private get inside(): Inside {
    return this as unknown as Inside
  }

  private holdAcknowledgements(): void {
    const send = this.inside._sendPacket.bind(this)
    const held: Inside['_sendPacket'] = (packet, callback, ...rest) => {
      switch (packet.cmd) {
        case 'puback': // handlePublish, after handleMessage has taken it
          callback?.()
          return
        case 'pubrec': // handlePublish, after it put the message into its store
          this.takeStored(packet.messageId ?? 0, callback ?? (() => undefined))
          return
        case 'pubcomp': // handlePubrel
          this.committedQos2.delete(packet.messageId ?? 0)
          send(packet, callback, ...rest)
          return
        default:
          send(packet, callback, ...rest)
      }
    }
    this.inside._sendPacket = held
  }

  private takeStored(messageId: number, callback: () => void): void {
    this.incomingStore.get({ messageId }, (_error, packet) => {
      if (packet?.cmd !== 'publish') callback()
      else if (this.committedQos2.has(messageId)) {
        if (this.connected) this.inside._writePacket({ cmd: 'pubrec', messageId })
        callback()
      } else this.take(packet, callback)
    })
  }

  private take(packet: IPublishPacket, callback: () => void): void {
    // What an old connection left in the parser comes again on the next one.
    if (!this.connected || this.turningAway) {
      callback()
      return
    }
    const hold = new MessageHold(packet, this.generation, this.onSettled)
    this.acks.push(hold)
    this.heldMessages++
    this.heldBytes += hold.bytes
    if (this.isFull()) this.goOn = callback
    this.deliver(new ReceivedMessage(packet, hold))
    if (this.goOn !== callback) callback()
  }

  private readonly onSettled = ({ generation, bytes }: MessageHold): void => {
    if (generation !== this.generation) return
    this.heldMessages--
    this.heldBytes -= bytes
    this.releaseSoon()
  }

  private isFull(): boolean {
    return this.heldMessages > this.limits.maxHeld || this.heldBytes > this.limits.maxHeldBytes
  }

  private releaseScheduled = false

  /** A batch settles its messages one after the other: they are answered together, in one write. */
  private releaseSoon(): void {
    if (this.releaseScheduled) return
    this.releaseScheduled = true
    queueMicrotask(() => {
      this.releaseScheduled = false
      this.release()
    })
  }

  private release(): void {
    const { stream } = this
    if (!this.connected || stream.destroyed) return
    const answers: Answer[] = []
    for (let held = this.acks.shiftSettled(); held; held = this.acks.shiftSettled()) {
      if (held.qos === 2) this.committedQos2.add(held.messageId)
      if (held.qos > 0) answers.push(held)
    }
    if (answers.length > 0) stream.write(bytesOf(answers))
    this.readOn()
  }

  private readOn(): void {
    if (!this.goOn || this.isFull()) return
    const goOn = this.goOn
    this.goOn = undefined
    goOn()
  }

  private forget(): void {
    this.generation++
    this.acks.clear()
    this.heldMessages = 0
    this.heldBytes = 0
    this.goOn = undefined
    this.turningAway = false
    this.untaken.clear()
  }
}

/** One message as it was received. Whoever is done with what it says keeps its hold alone. */
export interface Delivery extends Hold {
  readonly topic: string
  readonly payload: Buffer
  readonly contentType: string | undefined
  /** Epoch milliseconds. */
  readonly receivedAt: number
  readonly hold: Hold
}

/** The acknowledgement of a message. */
export interface Hold {
  /** Says that the message is committed. It is acknowledged as soon as all before it are. After a reconnect: no effect. */
  settle(): void
}

export interface HoldingLimits {
  /** Held messages above which the socket is not read. At most one more is taken. */
  readonly maxHeld: number
  /** Bytes of held payloads above which the socket is not read. At most one more message is taken. */
  readonly maxHeldBytes: number
}

/** The private parts of MQTT.js 5.16.0 that this class stands on. */
interface Inside {
  /** Through it go all packets that the handlers of incoming packets answer with. */
  _sendPacket(packet: Packet, callback?: () => void, stored?: () => void, noStore?: boolean): void
  /** Writes a packet to the stream, at once and unconditionally. */
  _writePacket(packet: Packet): void
}

// MQTT 5, section 3.4.2.1
const NO_MATCHING_SUBSCRIBERS = 16

/**
 * What is kept of a message until it is acknowledged, and no more: thousands wait at a time, and whatever else they held
 * would be moved by each collection of garbage.
 */
class MessageHold implements Hold {
  readonly receivedAt = Date.now()
  readonly bytes: number
  readonly qos: 0 | 1 | 2
  readonly messageId: number
  settled = false

  constructor(
    packet: IPublishPacket,
    readonly generation: number,
    private readonly onSettled: (hold: MessageHold) => void,
  ) {
    this.bytes = packet.payload.length
    this.qos = packet.qos
    this.messageId = packet.messageId ?? 0
  }

  settle(): void {
    if (this.settled) return
    this.settled = true
    this.onSettled(this)
  }
}

class ReceivedMessage implements Delivery {
  readonly topic: string
  readonly payload: Buffer
  readonly contentType: string | undefined
  readonly receivedAt: number

  constructor(
    packet: IPublishPacket,
    readonly hold: MessageHold,
  ) {
    this.topic = packet.topic
    this.payload = packet.payload as Buffer
    this.contentType = packet.properties?.contentType
    this.receivedAt = hold.receivedAt
  }

  settle(): void {
    this.hold.settle()
  }
}

type Answer = Pick<MessageHold, 'qos' | 'messageId'>

// Fixed headers of PUBACK and PUBREC; without a reason code they mean success, in MQTT 5 as well [MQTT 5, 3.4.2.1].
const PUBACK = 0x40
const PUBREC = 0x50

/** Packet by packet MQTT.js writes each in three pieces, which cost more than all the rest of an acknowledgement. */
function bytesOf(answers: readonly Answer[]): Buffer {
  const bytes = Buffer.allocUnsafe(answers.length * 4)
  let at = 0
  for (const { qos, messageId } of answers) {
    bytes[at] = qos === 1 ? PUBACK : PUBREC
    bytes[at + 1] = 2
    bytes[at + 2] = messageId >> 8
    bytes[at + 3] = messageId & 0xff
    at += 4
  }
  return bytes
}

/** First in, first out, with a head index: shift() of a long array would move all of it. */
class AckQueue {
  private entries: Array<MessageHold | undefined> = []
  private head = 0

  get oldest(): number | undefined {
    return this.entries[this.head]?.receivedAt
  }

  push(entry: MessageHold): void {
    this.entries.push(entry)
  }

  /** Takes the first one if it is settled. */
  shiftSettled(): MessageHold | undefined {
    const entry = this.entries[this.head]
    if (!entry?.settled) return undefined
    // Or the array would keep thousands of messages that are done with, and each collection of garbage would move them.
    this.entries[this.head++] = undefined
    if (this.head === this.entries.length) this.clear()
    else if (this.head >= COMPACT_AT) {
      this.entries = this.entries.slice(this.head)
      this.head = 0
    }
    return entry
  }

  clear(): void {
    this.entries = []
    this.head = 0
  }
}

const COMPACT_AT = 4_096
