import { once } from 'node:events'
import * as net from 'node:net'
import { until } from '@ares/chassis/testing'
import type { Packet } from 'mqtt'
import * as mqttPacket from 'mqtt-packet'
import { quietLogger } from '../testing/test-api'
import { MqttSession } from './session'

/** A broker in a few lines: it says to each CONNECT what the test wants, and grants every subscription. */
async function brokerThat(greets: (send: (packet: object) => void, connect: { protocolVersion: number }) => void) {
  const sockets = new Set<net.Socket>()
  const seen = { connects: [] as number[], subscribes: 0 }
  const server = net.createServer((socket) => {
    let protocolVersion = 4
    const parser = mqttPacket.parser({ protocolVersion: 5 })
    const send = (packet: object) => socket.write(mqttPacket.generate(packet as Packet, { protocolVersion }))
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', (data) => parser.parse(data))
    parser.on('packet', (packet) => {
      if (packet.cmd === 'connect') {
        protocolVersion = packet.protocolVersion ?? 4
        seen.connects.push(protocolVersion)
        greets(send, { protocolVersion })
      }
      if (packet.cmd === 'subscribe') {
        seen.subscribes++
        send({ cmd: 'suback', messageId: packet.messageId, granted: packet.subscriptions.map(() => 1) })
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  }
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  return { url: `mqtt://127.0.0.1:${(server.address() as net.AddressInfo).port}`, seen, stop, cut }
}

function sessionWith(url: string, failures: Error[] = []): MqttSession {
  return new MqttSession(
    {
      url,
      version: 'auto',
      clientId: 'ares4-mqtt-listener-0000000a',
      sessionExpiryMs: 5_000,
      receiveMaximum: 10,
      maxHeldBytes: 1_048_576,
      leaveGroup: false,
    },
    {
      identity: { current: () => fail(), onRenewed: () => () => undefined },
      logger: quietLogger(),
      onDelivery: () => undefined,
      onReconnect: () => undefined,
      onClosed: () => undefined,
      onFailure: (error) => failures.push(error),
    },
  )
}

const fail = (): never => {
  throw new Error('a plain connection needs no certificate')
}

it('stops for good when another process takes over its client id, and says so', async () => {
  const broker = await brokerThat((send) => {
    send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    setTimeout(() => send({ cmd: 'disconnect', reasonCode: 142 }), 50)
  })
  const failures: Error[] = []
  const session = sessionWith(broker.url, failures)
  await until(() => failures.length === 1, 'the failure is told')
  expect(failures[0]?.message).toMatch(/another process uses the MQTT client id .* ARES_LISTENER_INSTANCE/)
  await new Promise((resolve) => setTimeout(resolve, 400))
  expect(broker.seen.connects).toHaveLength(1)
  expect(session.problem).toContain('another process')
  await session.stop(async () => true)
  await broker.stop()
})

it('goes on with MQTT 3.1.1 when the broker refuses 5, and subscribes once per session', async () => {
  let sessionPresent = false
  const broker = await brokerThat((send, { protocolVersion }) => {
    if (protocolVersion === 5) send({ cmd: 'connack', reasonCode: 1, returnCode: 1, sessionPresent: false })
    else send({ cmd: 'connack', returnCode: 0, sessionPresent })
    if (protocolVersion === 4) sessionPresent = true
  })
  const session = sessionWith(broker.url)
  await until(() => session.problem === undefined, 'it is subscribed')
  expect(broker.seen).toEqual({ connects: [5, 4], subscribes: 1 })
  broker.cut()
  await until(() => broker.seen.connects.length === 3, 'it is connected again')
  await until(() => session.problem === undefined, 'it is up')
  expect(broker.seen).toEqual({ connects: [5, 4, 4], subscribes: 1 })
  await session.stop(async () => true)
  await broker.stop()
})
