import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { generate, type IConnectPacket } from 'mqtt-packet'

/** How a device reaches its broker. Without a key it comes without TLS, or without a certificate. */
export interface Endpoint {
  /** mqtt://host:port or mqtts://host:port */
  readonly url: string
  readonly clientId: string
  readonly keyPem?: string
  readonly certificatePem?: string
  readonly caPem?: string
}

export interface DeviceEvents {
  /** The broker's PUBACKs of one read, in order. */
  onAcknowledged(messageIds: readonly number[]): void
  /** A message for the device. */
  onMessage?(topic: string, payload: Buffer): void
  /** Once, after the connection was open. */
  onClosed?(): void
}

const KEEPALIVE_SECONDS = 60

/**
 * A device of MQTT 3.1.1 on the wire and nothing more: what it costs would be missing to those who are measured. It writes
 * all that may go out in one piece and keeps no copy; who wants to send again keeps it.
 */
export class DeviceConnection {
  private rest: Buffer = Buffer.alloc(0)
  private nextId = 0
  private readonly ping: NodeJS.Timeout

  private constructor(
    private readonly socket: Socket,
    private readonly events: DeviceEvents,
  ) {
    this.ping = setInterval(() => this.write(PINGREQ), (KEEPALIVE_SECONDS * 1_000) / 2).unref()
    socket.on('data', (chunk: Buffer) => this.read(chunk))
    socket.once('close', () => {
      clearInterval(this.ping)
      events.onClosed?.()
    })
  }

  /** Connects and waits for the broker's CONNACK. @throws when it does not come within 10 s or refuses */
  static async open(endpoint: Endpoint, events: DeviceEvents): Promise<DeviceConnection> {
    const socket = await connected(endpoint)
    try {
      await greeted(socket, endpoint.clientId)
      return new DeviceConnection(socket, events)
    } catch (error) {
      socket.destroy()
      throw error
    }
  }

  get isOpen(): boolean {
    return !this.socket.destroyed
  }

  /** Publishes at QoS 1. @param payloads ASCII only @returns the message ids, in order */
  publish(topic: string, payloads: readonly string[]): number[] {
    let size = 0
    for (const payload of payloads) size += lengthOf(topic, payload).total
    const bytes = Buffer.allocUnsafe(size)
    const ids: number[] = []
    let at = 0
    for (const payload of payloads) {
      this.nextId = (this.nextId % 65_535) + 1
      ids.push(this.nextId)
      at = writePublish(bytes, at, topic, payload, this.nextId)
    }
    this.write(bytes)
    return ids
  }

  subscribe(topic: string): void {
    this.nextId = (this.nextId % 65_535) + 1
    const subscriptions = [{ topic, qos: 0 as const }]
    this.write(generate({ cmd: 'subscribe', messageId: this.nextId, subscriptions }))
  }

  close(): void {
    this.write(DISCONNECT)
    this.socket.end()
    setTimeout(() => this.socket.destroy(), 1_000).unref()
  }

  /** Without a word, as a device that loses its power. */
  destroy(): void {
    this.socket.destroy()
  }

  private write(bytes: Buffer): void {
    if (this.isOpen && this.socket.writable) this.socket.write(bytes)
  }

  private read(chunk: Buffer): void {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
    const acknowledged: number[] = []
    let at = 0
    for (;;) {
      const packet = packetAt(bytes, at)
      if (!packet) break
      const { type, bodyStart, end } = packet
      if (type === PUBACK) acknowledged.push(bytes.readUInt16BE(bodyStart))
      else if (type === PUBLISH) this.deliver(bytes.subarray(bodyStart, end))
      at = end
    }
    // A copy: a part of a read would keep all of it in memory.
    this.rest = at === bytes.length ? Buffer.alloc(0) : Buffer.from(bytes.subarray(at))
    if (acknowledged.length > 0) this.events.onAcknowledged(acknowledged)
  }

  /** Only QoS 0 was asked for, so there is no message id in it and no answer to give. */
  private deliver(body: Buffer): void {
    const topicLength = body.readUInt16BE(0)
    this.events.onMessage?.(body.toString('utf8', 2, 2 + topicLength), body.subarray(2 + topicLength))
  }
}

// MQTT 3.1.1, section 2.2.1
const CONNACK = 2
const PUBLISH = 3
const PUBACK = 4
const PINGREQ = Buffer.from([0xc0, 0])
const DISCONNECT = Buffer.from([0xe0, 0])

function connected({ url, keyPem, certificatePem, caPem }: Endpoint): Promise<Socket> {
  const { protocol, hostname: host, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket =
      protocol === 'mqtts:'
        ? connectTls({
            host,
            port: Number(port || 8883),
            servername: host,
            key: keyPem,
            cert: certificatePem,
            ca: caPem,
          })
        : connectTcp({ host, port: Number(port || 1883) })
    const timer = setTimeout(() => socket.destroy(new Error(`no connection to ${url} within 10 s`)), 10_000)
    socket.setNoDelay(true)
    socket.on('error', reject)
    socket.once('close', () => {
      clearTimeout(timer)
      reject(new Error(`${url} closed the connection`))
    })
    socket.once(protocol === 'mqtts:' ? 'secureConnect' : 'connect', () => {
      clearTimeout(timer)
      resolve(socket)
    })
  })
}

function greeted(socket: Socket, clientId: string): Promise<void> {
  const connect: IConnectPacket = {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: true,
    clientId,
    keepalive: KEEPALIVE_SECONDS,
  }
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no CONNACK for ${clientId} within 10 s`)), 10_000)
    socket.once('close', () => reject(new Error(`the broker closed the connection of ${clientId} before its CONNACK`)))
    socket.once('data', (answer: Buffer) => {
      clearTimeout(timer)
      const code = answer.readUInt8(0) >> 4 === CONNACK ? answer.readUInt8(3) : Number.NaN
      if (code === 0) resolve()
      else reject(new Error(`the broker refuses ${clientId} with code ${code}`))
    })
    socket.write(generate(connect))
  })
}

function lengthOf(topic: string, payload: string): { readonly remaining: number; readonly total: number } {
  const remaining = 2 + topic.length + 2 + payload.length
  return { remaining, total: 1 + (remaining < 128 ? 1 : remaining < 16_384 ? 2 : 3) + remaining }
}

function writePublish(bytes: Buffer, start: number, topic: string, payload: string, messageId: number): number {
  let at = bytes.writeUInt8((PUBLISH << 4) | 0b0010, start)
  let { remaining } = lengthOf(topic, payload)
  do {
    const more = remaining >= 128
    at = bytes.writeUInt8((remaining & 127) | (more ? 128 : 0), at)
    remaining >>= 7
  } while (remaining > 0)
  at = bytes.writeUInt16BE(topic.length, at)
  at += bytes.write(topic, at, 'latin1')
  at = bytes.writeUInt16BE(messageId, at)
  return at + bytes.write(payload, at, 'latin1')
}

interface PacketPlace {
  readonly type: number
  readonly bodyStart: number
  readonly end: number
}

/** The packet that begins at `start`, if all of it is there. */
function packetAt(bytes: Buffer, start: number): PacketPlace | undefined {
  let length = 0
  for (let position = 1; position <= 4; position++) {
    const at = start + position
    if (at >= bytes.length) return undefined
    const digit = bytes[at] ?? 0
    length += (digit & 127) * 128 ** (position - 1)
    if (digit & 128) continue
    const bodyStart = at + 1
    const end = bodyStart + length
    return end <= bytes.length ? { type: (bytes[start] ?? 0) >> 4, bodyStart, end } : undefined
  }
  throw new Error('the broker sent a length of more than four digits')
}
