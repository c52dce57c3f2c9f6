import { connect, type MqttClient } from 'mqtt'

/**
 * The floor: MQTT.js as it comes, which counts messages and acknowledges them by itself. Nothing that does something with
 * a message can be faster on the same broker.
 */
export interface FloorSetup {
  readonly url: string
  readonly clientId: string
  readonly keyPem?: string
  readonly certificatePem?: string
  readonly caPem?: string
}

export type FloorOrder = { readonly type: 'setup'; readonly setup: FloorSetup } | { readonly type: 'count' }

export type FloorNews =
  | { readonly type: 'ready' }
  /** `lastAt`: when the last message came, epoch milliseconds. */
  | { readonly type: 'counted'; readonly messages: number; readonly lastAt: number }
  | { readonly type: 'failed'; readonly reason: string }

let messages = 0
let lastAt = 0

function subscribe({ url, clientId, keyPem, certificatePem, caPem }: FloorSetup): MqttClient {
  const client = connect(url, {
    clientId,
    key: keyPem,
    cert: certificatePem,
    ca: caPem,
    protocolVersion: 4,
    clean: true,
    reconnectPeriod: 0,
  })
  client.on('message', () => {
    messages += 1
    lastAt = Date.now()
  })
  client.once('connect', () => {
    client.subscribe('$share/bench-floor/ares4/+/telemetry', { qos: 1 }, (error, granted) => {
      if (error || granted?.[0]?.qos !== 1) fail(`the subscription is refused: ${error?.message ?? 'no reason given'}`)
      else tell({ type: 'ready' })
    })
  })
  client.on('error', (error) => fail(error.message))
  client.on('close', () => fail('the broker closed the connection'))
  return client
}

const tell = (news: FloorNews): void => void process.send?.(news)

function fail(reason: string): void {
  tell({ type: 'failed', reason })
  process.exitCode = 1
}

process.on('message', (message) => {
  const order = message as FloorOrder
  if (order.type === 'setup') subscribe(order.setup)
  else tell({ type: 'counted', messages, lastAt })
})
process.once('disconnect', () => process.exit(0))
