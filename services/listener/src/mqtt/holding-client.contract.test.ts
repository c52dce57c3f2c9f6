import { once } from 'node:events'
import * as net from 'node:net'
import { until } from '@ares/chassis/testing'
import { MqttClient, type Packet } from 'mqtt'
import { version as installed } from 'mqtt/package.json'
import * as mqttPacket from 'mqtt-packet'
import { type Delivery, HoldingClient } from './holding-client'

/** A broker that says exactly what a test tells it, so that the order on the wire can be looked at. */
class ScriptedBroker {
  readonly received: Packet[] = []
  private socket: net.Socket | undefined
  private readonly server = net.createServer((socket) => this.accept(socket))
  sessionPresent = true

  constructor(private readonly version: 4 | 5) {}

  async start(): Promise<number> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return (this.server.address() as net.AddressInfo).port
  }

  send(packet: Packet): void {
    this.socket?.write(mqttPacket.generate(packet, { protocolVersion: this.version }))
  }

  /** Several packets in one segment, as a busy broker sends them. */
  sendTogether(packets: Packet[]): void {
    this.socket?.write(
      Buffer.concat(packets.map((packet) => mqttPacket.generate(packet, { protocolVersion: this.version }))),
    )
  }

  cut(): void {
    this.socket?.destroy()
  }

  ids(command: Packet['cmd']): number[] {
    return this.received.filter((packet) => packet.cmd === command).map((packet) => packet.messageId ?? 0)
  }

  async stop(): Promise<void> {
    this.socket?.destroy()
    this.server.close()
    await once(this.server, 'close')
  }

  private accept(socket: net.Socket): void {
    this.socket = socket
    const parser = mqttPacket.parser({ protocolVersion: this.version })
    socket.on('data', (data) => parser.parse(data))
    socket.on('error', () => undefined)
    parser.on('packet', (packet) => {
      this.received.push(packet)
      if (packet.cmd === 'connect') {
        this.send({ cmd: 'connack', sessionPresent: this.sessionPresent, returnCode: 0, reasonCode: 0 } as Packet)
      }
      if (packet.cmd === 'pingreq') this.send({ cmd: 'pingresp' })
    })
  }
}

const publish = (messageId: number, qos: 0 | 1 | 2 = 1, payload = String(messageId), dup = false): Packet => ({
  cmd: 'publish',
  topic: 't',
  payload,
  qos,
  messageId: qos === 0 ? undefined : messageId,
  dup,
  retain: false,
})

const connected = (client: HoldingClient) => new Promise<void>((resolve) => client.once('connect', () => resolve()))

const settled = (ms = 50) => new Promise((resolve) => setTimeout(resolve, ms))

it('is written for the installed version of MQTT.js', () => {
  expect(installed).toBe('5.16.0')
})

it('finds the private parts of MQTT.js that it stands on', () => {
  const prototype = MqttClient.prototype as unknown as Record<string, unknown>
  for (const name of ['_sendPacket', '_writePacket', 'handleMessage', 'onKeepaliveTimeout', 'reschedulePing']) {
    expect(typeof prototype[name]).toBe('function')
  }
})

describe.each([4, 5] as const)('with MQTT protocol version %i', (version) => {
  let broker: ScriptedBroker
  let client: HoldingClient
  let deliveries: Delivery[]

  beforeEach(async () => {
    broker = new ScriptedBroker(version)
    const port = await broker.start()
    deliveries = []
    client = new HoldingClient(
      () => net.connect(port, '127.0.0.1'),
      { clientId: 'c', clean: false, protocolVersion: version, reconnectPeriod: 20, keepalive: 1 },
      { maxHeld: 3, maxHeldBytes: 10_000, onDelivery: (delivery) => deliveries.push(delivery) },
    )
    await connected(client)
  })

  afterEach(async () => {
    await client.endAsync(true)
    await broker.stop()
  })

  it('goes on with parsing while acknowledgements wait, and sends none before it is told', async () => {
    broker.sendTogether([publish(1), publish(2), publish(3)])
    await until(() => deliveries.length === 3, 'three messages are delivered')
    await settled()
    expect(broker.ids('puback')).toEqual([])
    expect(client.held.messages).toBe(3)
  })

  it('acknowledges in the order of receipt, whatever the order of the commits', async () => {
    broker.sendTogether([publish(7), publish(5), publish(9)])
    await until(() => deliveries.length === 3, 'three messages are delivered')
    deliveries[2]!.settle()
    deliveries[1]!.settle()
    await settled()
    expect(broker.ids('puback')).toEqual([])
    deliveries[0]!.settle()
    await until(() => broker.ids('puback').length === 3, 'three are acknowledged')
    expect(broker.ids('puback')).toEqual([7, 5, 9])
  })

  it('acknowledges once, however often it is told', async () => {
    broker.send(publish(1))
    await until(() => deliveries.length === 1, 'it is delivered')
    deliveries[0]!.settle()
    deliveries[0]!.settle()
    await settled()
    expect(broker.ids('puback')).toEqual([1])
    expect(client.held).toEqual({ messages: 0, bytes: 0 })
  })

  it('never sends an acknowledgement of a closed connection on the next one', async () => {
    broker.sendTogether([publish(1), publish(2)])
    await until(() => deliveries.length === 2, 'two are delivered')
    const reconnected = connected(client)
    broker.cut()
    await reconnected
    expect(client.held.messages).toBe(0)
    for (const delivery of deliveries.splice(0)) delivery.settle()
    await settled()
    expect(broker.ids('puback')).toEqual([])
    broker.send(publish(1, 1, 'another message with the same id', true))
    await until(() => deliveries.length === 1, 'the new one is delivered')
    deliveries[0]!.settle()
    await until(() => broker.ids('puback').length === 1, 'the new one is acknowledged')
  })

  it('neither delivers nor acknowledges what an old connection left behind', async () => {
    broker.sendTogether([1, 2, 3, 4, 5, 6].map((id) => publish(id)))
    await until(() => client.isReadingStopped, 'reading is stopped')
    const reconnected = connected(client)
    client.stream.destroy()
    await reconnected
    expect(deliveries).toHaveLength(4)
    for (const delivery of deliveries) delivery.settle()
    await settled()
    expect(deliveries).toHaveLength(4)
    expect(broker.ids('puback')).toEqual([])
  })

  it('stops reading above its limit, answers no ping meanwhile, and reads on', async () => {
    broker.sendTogether([1, 2, 3, 4, 5, 6].map((id) => publish(id)))
    await until(() => client.isReadingStopped, 'reading is stopped')
    // Longer than MQTT.js waits for a PINGRESP with a keepalive of one second.
    await settled(1_800)
    expect(deliveries).toHaveLength(4)
    expect(client.connected).toBe(true)
    expect(broker.ids('pingreq').length).toBeGreaterThan(0)
    for (const delivery of deliveries.slice()) delivery.settle()
    await until(() => deliveries.length === 6, 'the rest is read')
    for (const delivery of deliveries) delivery.settle()
    await until(() => broker.ids('puback').length === 6, 'all are acknowledged')
    expect(broker.ids('puback')).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('stops reading when too many bytes are held', async () => {
    broker.sendTogether([publish(1, 1, 'x'.repeat(11_000)), publish(2)])
    await until(() => client.isReadingStopped, 'reading is stopped')
    expect(deliveries).toHaveLength(1)
    deliveries[0]!.settle()
    await until(() => deliveries.length === 2, 'the next one is read')
  })

  it('holds QoS 0 for its memory and acknowledges it never', async () => {
    broker.sendTogether([publish(0, 0, 'a'), publish(1)])
    await until(() => deliveries.length === 2, 'both are delivered')
    expect(client.held.messages).toBe(2)
    deliveries[1]!.settle()
    await settled()
    expect(broker.ids('puback')).toEqual([])
    deliveries[0]!.settle()
    await until(() => broker.ids('puback').length === 1, 'the other one is acknowledged')
  })

  it('delivers QoS 2 at its PUBLISH, holds the PUBREC until the commit, and delivers it once', async () => {
    broker.send(publish(4, 2))
    await until(() => deliveries.length === 1, 'it is delivered')
    await settled()
    expect(broker.ids('pubrec')).toEqual([])
    deliveries[0]!.settle()
    await until(() => broker.ids('pubrec').length === 1, 'PUBREC is sent')
    broker.send(publish(4, 2, '4', true))
    await until(() => broker.ids('pubrec').length === 2, 'the repeated one is answered')
    broker.send({ cmd: 'pubrel', messageId: 4 })
    await until(() => broker.ids('pubcomp').length === 1, 'PUBCOMP is sent')
    expect(deliveries).toHaveLength(1)
    broker.send(publish(4, 2, 'a new one with the id that is free again'))
    await until(() => deliveries.length === 2, 'the new one is delivered')
  })

  it('is given a QoS 2 message again when the connection ends before the commit', async () => {
    broker.send(publish(4, 2))
    await until(() => deliveries.length === 1, 'it is delivered')
    const reconnected = connected(client)
    broker.cut()
    await reconnected
    deliveries[0]!.settle()
    broker.send(publish(4, 2, '4', true))
    await until(() => deliveries.length === 2, 'it is delivered again')
    await settled()
    expect(broker.ids('pubrec')).toEqual([])
    deliveries[1]!.settle()
    await until(() => broker.ids('pubrec').length === 1, 'PUBREC is sent')
  })

  it('turns away what comes, without an acknowledgement, until the connection ends', async () => {
    client.turnAway()
    broker.send(publish(1))
    await settled()
    expect(deliveries).toHaveLength(0)
    expect(broker.ids('puback')).toEqual([])
    const reconnected = connected(client)
    client.stream.end()
    await reconnected
    broker.send(publish(1, 1, '1', true))
    await until(() => deliveries.length === 1, 'it is delivered on the next connection')
  })

  it('says whether a session took what it published', async () => {
    const answers = [0, 16]
    const answer = setInterval(() => {
      const waiting = broker.received.find((packet) => packet.cmd === 'publish')
      if (!waiting) return
      broker.received.splice(broker.received.indexOf(waiting), 1)
      broker.send({ cmd: 'puback', messageId: waiting.messageId, reasonCode: answers.shift() } as Packet)
    }, 5)
    expect(await client.publishAcknowledged('t', 'x')).toBe(true)
    expect(await client.publishAcknowledged('t', 'x')).toBe(version === 4)
    clearInterval(answer)
  })
})
