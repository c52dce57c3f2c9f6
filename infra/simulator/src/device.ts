import { Backoff } from '@ares/chassis'
import { topics } from '@ares/proto'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import type { DeviceIdentity, FleetDevice } from './fleet'
import { Outbox, type OutboxOptions, type Report } from './outbox'
import { Renewal, type RenewalAnswer } from './renewal'
import { Sensor } from './sensor'

export interface DeviceOptions {
  /** mqtts://host:port */
  readonly mqttUrl: string
  /** Time between two reports; default 2 s, as fast as a DHT22 can be read. 0: it reports only when told to. */
  readonly intervalMs?: number
  readonly outbox?: OutboxOptions
  /** Part of its certificate's life after which it asks for the next one; default a little over one half. */
  readonly renewAfter?: number
  /** What the device would print on its console. */
  readonly log?: (line: string) => void
}

export interface DeviceStats {
  readonly online: boolean
  /** Reports made. */
  readonly made: number
  /** The broker said it has them. */
  readonly acknowledged: number
  /** Ares said they are committed. */
  readonly committed: number
  /** Ares said it will never take them. */
  readonly refused: number
  /** Made, but neither committed nor refused yet. */
  readonly waiting: number
  /** Given up because too many were waiting. */
  readonly dropped: number
  /** New certificates that it has connected with. */
  readonly renewed: number
}

const HOUSEKEEPING_MS = 1_000

/**
 * One simulated device, a client like any other: mutual TLS with its own key and certificate, a will, a persistent session,
 * each report kept until its receipt. It goes on trying for ever, ever more slowly; only `stop` ends it.
 */
export class SimulatedDevice {
  private client: MqttClient | undefined
  private readonly outbox: Outbox
  private readonly sensor: Sensor
  private readonly timers: NodeJS.Timeout[] = []
  private readonly log: (line: string) => void
  // The clock, so that a device that starts again does not count from where it has been.
  private sequence = Date.now() * 1_000
  private counts = { made: 0, acknowledged: 0, committed: 0, refused: 0, renewed: 0 }
  private readonly renewal: Renewal

  constructor(
    readonly device: FleetDevice,
    identity: DeviceIdentity,
    private readonly options: DeviceOptions,
  ) {
    this.renewal = new Renewal(device.id, identity, options.renewAfter)
    this.outbox = new Outbox(options.outbox)
    this.sensor = new Sensor(seedOf(device.id))
    this.log = options.log ?? (() => {})
  }

  /** Begins; does not wait for the connection. */
  start(): void {
    const client = mqtt.connect(this.options.mqttUrl, this.connectOptions())
    this.client = client
    const backoff = new Backoff(500, 30_000)
    client.on('reconnect', () => {
      client.options.reconnectPeriod = backoff.next()
    })
    client.on('connect', () => {
      backoff.reset()
      client.options.reconnectPeriod = backoff.next()
      this.connected(client)
    })
    client.on('message', (topic, payload) => this.received(topic, payload))
    client.on('error', (error) => {
      if (speaksOlderMqtt(client, error)) client.options.protocolVersion = 4
      else this.log(`${this.device.name}: ${error.message}`)
      if (this.renewal.refused()) this.present(client)
    })
    client.on('close', () => this.log(`${this.device.name}: the connection is closed`))

    const { intervalMs = 2_000 } = this.options
    if (intervalMs > 0) {
      this.report()
      this.timers.push(setInterval(() => this.report(), intervalMs))
    }
    this.timers.push(setInterval(() => this.housekeeping(), HOUSEKEEPING_MS))
  }

  /** Measures, and sends when the window allows. @returns the report's sequence */
  report(at: Date = new Date()): number {
    const metrics = this.sensor.read(at)
    const sequence = ++this.sequence
    this.outbox.add({ sequence, component: this.device.component, timestamp: at.toISOString(), metrics })
    this.counts.made += 1
    this.flush()
    return sequence
  }

  stats(): DeviceStats {
    const { size: waiting, dropped } = this.outbox
    return { online: this.client?.connected ?? false, ...this.counts, waiting, dropped }
  }

  /** Asks for a new certificate now, whatever the age of the one it has. */
  async renew(): Promise<void> {
    const csr = await this.renewal.begin(Date.now())
    await this.client?.publishAsync(topics.certificateRequest(this.device.id), JSON.stringify({ csr }), { qos: 1 })
  }

  /** Serial number of the certificate that it presents. */
  get certificateSerial(): string {
    return this.renewal.identity.serial
  }

  /** Says goodbye and closes. What is not committed by now is lost with the process. */
  async stop(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer)
    const client = this.client
    if (!client) return
    if (client.connected) await within(1_000, this.sayStatus(client, 'offline'))
    await within(1_000, client.endAsync())
    await client.endAsync(true)
  }

  private connectOptions(): IClientOptions {
    const { id } = this.device
    return {
      clientId: id,
      ...tlsOf(this.renewal.identity),
      protocolVersion: 5,
      // A session that outlives the connection keeps commands; for an hour, not for ever.
      clean: false,
      properties: { sessionExpiryInterval: 3_600 },
      keepalive: 30,
      reconnectPeriod: 500,
      // Refused today may be welcome tomorrow: the authorizer may be starting.
      reconnectOnConnackError: true,
      resubscribe: false,
      will: { topic: topics.status(id), payload: Buffer.from('{"status":"offline"}'), qos: 1, retain: true },
    }
  }

  private connected(client: MqttClient): void {
    const { id, name } = this.device
    this.log(`${name}: connected`)
    if (this.renewal.connected()) this.counts.renewed += 1
    const wanted = {
      [topics.receipts(id)]: { qos: 0 },
      [topics.errors(id)]: { qos: 0 },
      [topics.command(id, '+')]: { qos: 1 },
      [topics.certificateResponse(id)]: { qos: 1 },
    } as const
    client.subscribe(wanted, (error) => {
      if (error) this.log(`${name}: cannot subscribe: ${error.message}`)
    })
    this.sayStatus(client, 'online').catch((error: Error) => this.log(`${name}: ${error.message}`))
    this.outbox.reconnected()
    this.flush()
  }

  private async sayStatus(client: MqttClient, status: 'online' | 'offline'): Promise<void> {
    await client.publishAsync(topics.status(this.device.id), JSON.stringify({ status }), { qos: 1, retain: true })
  }

  private flush(): void {
    if (!this.client?.connected) return
    for (let report = this.outbox.take(); report; report = this.outbox.take()) this.send(this.client, report)
  }

  private send(client: MqttClient, report: Report): void {
    client.publish(topics.telemetry(this.device.id), JSON.stringify(report), { qos: 1 }, (error) => {
      if (error) return this.outbox.failed(report.sequence)
      this.counts.acknowledged += 1
      this.outbox.sent(report.sequence, Date.now())
    })
  }

  private received(topic: string, payload: Buffer): void {
    const { id } = this.device
    const message = parsed(payload)
    if (topic === topics.receipts(id)) {
      for (const sequence of message.sequences ?? []) if (this.outbox.confirmed(sequence)) this.counts.committed += 1
    } else if (topic === topics.errors(id)) {
      this.log(`${this.device.name}: report ${message.sequence} refused: ${message.reason}`)
      if (message.sequence !== undefined && this.outbox.confirmed(message.sequence)) this.counts.refused += 1
    } else if (topic === topics.certificateResponse(id)) {
      this.certified(message)
    } else if (topic.startsWith(topics.command(id, ''))) {
      this.obey(topic.slice(topics.command(id, '').length), message)
    }
    this.flush()
  }

  /** A simulated device can do anything, at once, unless it is too late. */
  private obey(commandId: string, command: Message): void {
    const late = command.expiresAt !== undefined && new Date(command.expiresAt).getTime() < Date.now()
    const answer = late
      ? { status: 'failed', error: 'the command has expired' }
      : { status: 'succeeded', result: { name: command.name, arguments: command.arguments } }
    this.client?.publish(topics.response(this.device.id, commandId), JSON.stringify(answer), { qos: 1 })
  }

  /** The connection with the new certificate takes the place of the old one: what is on its way goes out again there. */
  private certified(answer: RenewalAnswer): void {
    const { name } = this.device
    if (answer.error) this.log(`${name}: no new certificate: ${answer.error.code}`)
    const client = this.client
    if (!this.renewal.answered(answer, Date.now()) || !client) return
    this.log(`${name}: connecting with the new certificate ${this.certificateSerial}`)
    this.present(client)
    client.options.reconnectPeriod = 1
    client.stream.end()
  }

  /** The next connection is made with the identity as it is now. */
  private present(client: MqttClient): void {
    Object.assign(client.options, tlsOf(this.renewal.identity))
  }

  private housekeeping(): void {
    if (this.client?.connected && this.renewal.isDue(Date.now())) {
      this.renew().catch((error: Error) => this.log(`${this.device.name}: ${error.message}`))
    }
    const overdue = this.outbox.overdue(Date.now())
    if (overdue > 0) this.log(`${this.device.name}: ${overdue} reports have no receipt and go out again`)
    this.flush()
  }
}

const tlsOf = ({ keyPem, certificatePem, caPem }: DeviceIdentity) => ({ key: keyPem, cert: certificatePem, ca: caPem })

interface Message extends RenewalAnswer {
  readonly sequences?: readonly number[]
  readonly sequence?: number
  readonly reason?: string
  readonly name?: string
  readonly arguments?: unknown
  readonly expiresAt?: string
}

function parsed(payload: Buffer): Message {
  try {
    const message: unknown = JSON.parse(payload.toString())
    return typeof message === 'object' && message !== null ? message : {}
  } catch {
    return {}
  }
}

/**
 * A broker of MQTT 3.1.1 answers a CONNECT of version 5 with code 1, in its own shape, which a parser for version 5 may
 * also call malformed; one of version 5 would say 132.
 */
function speaksOlderMqtt(client: MqttClient, error: Error & { code?: number | string }): boolean {
  if (client.options.protocolVersion !== 5) return false
  return error.code === 1 || error.code === 132 || /protocol version|parse|malformed/i.test(error.message)
}

async function within(limitMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise((resolve) => {
    timer = setTimeout(resolve, limitMs)
  })
  try {
    await Promise.race([work.catch(() => {}), limit])
  } finally {
    clearTimeout(timer)
  }
}

function seedOf(id: string): number {
  return [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 1_000_003, 7)
}
