import * as net from 'node:net'
import { connect } from 'mqtt'
import { Mosquitto } from '../testing/mosquitto'
import { type Delivery, HoldingClient } from './holding-client'

/**
 * What holding acknowledgements costs: QoS 1 through mosquitto, batches of 500 with a commit of 5 ms, beside plain MQTT.js.
 * node --conditions=source --import tsx services/listener/src/mqtt/held-acks.bench.ts
 */
const MESSAGES = 60_000
const BATCH = 500
const COMMIT_MS = 5

async function main(): Promise<void> {
  const broker = await Mosquitto.start()
  for (const mode of ['plain', 'held', 'plain', 'held'] as const) {
    process.stdout.write(`${mode}: ${await messagesPerSecond(mode, broker.port)} messages/s\n`)
  }
  await broker.stop()
}

async function messagesPerSecond(mode: 'plain' | 'held', port: number): Promise<number> {
  let received = 0
  let done: () => void = () => undefined
  const finished = new Promise<void>((resolve) => {
    done = resolve
  })
  let open: Delivery[] = []
  const commit = () => {
    const batch = open
    open = []
    setTimeout(() => {
      for (const delivery of batch) delivery.settle()
      received += batch.length
      if (received === MESSAGES) done()
    }, COMMIT_MS)
  }
  const options = { clientId: mode, protocolVersion: 5, properties: { receiveMaximum: 2_000 } } as const
  const subscriber =
    mode === 'plain'
      ? connect(`mqtt://127.0.0.1:${port}`, options).on('message', () => {
          if (++received === MESSAGES) done()
        })
      : new HoldingClient(
          () => net.connect(port, '127.0.0.1'),
          { ...options },
          {
            maxHeld: 2_000,
            maxHeldBytes: 64 * 1024 * 1024,
            onDelivery(delivery) {
              open.push(delivery)
              if (open.length === BATCH) commit()
            },
          },
        )
  await subscriber.subscribeAsync('bench/#', { qos: 1 })
  const publisher = connect(`mqtt://127.0.0.1:${port}`)
  const payload = Buffer.alloc(120, 0x61)
  const startedAt = performance.now()
  let next = 0
  const flow = async () => {
    while (next++ < MESSAGES) await publisher.publishAsync('bench/t', payload, { qos: 1 })
  }
  await Promise.all([...Array.from({ length: 400 }, flow), finished])
  const seconds = (performance.now() - startedAt) / 1_000
  await Promise.all([subscriber.endAsync(true), publisher.endAsync(true)])
  return Math.round(MESSAGES / seconds)
}

void main()
