import { topics } from '@ares/proto'
import type { BenchDevice } from './bench-fleet'
import { DeviceConnection } from './device-connection'
import { GARBAGE } from './garbage'
import { ReportSource } from './report-source'

/**
 * The publishers of a benchmark, in a process of their own. Each device keeps a window of unacknowledged reports; all
 * together send no more than their parent has allowed, so that what is measured is the receiver and not how much a broker
 * can queue.
 */
export interface PublisherSetup {
  readonly url: string
  readonly devices: readonly BenchDevice[]
  readonly metrics: number
  /** Unacknowledged reports a device. */
  readonly window: number
}

export type PublisherOrder =
  | { readonly type: 'setup'; readonly setup: PublisherSetup }
  /** Publish; at most `allowed` reports until the next word. @param ratePerSecond absent: as fast as possible */
  | {
      readonly type: 'run'
      readonly metrics: number
      readonly allowed: number
      readonly ratePerSecond?: number
      /** Every so many reports of a device one is garbage, its kinds in turn. Absent: none is. */
      readonly garbageEvery?: number
    }
  /** Counted from the last `run`. Let go evenly within a time: all at once, the load would come in waves. */
  | { readonly type: 'allow'; readonly allowed: number; readonly withinMs: number }
  | { readonly type: 'stop' }

export type PublisherNews =
  | { readonly type: 'ready' }
  | {
      readonly type: 'stopped'
      readonly published: number
      readonly acknowledged: number
      readonly firstAt: number
      /** How many of what was published is garbage, by the reason that it must be refused for. */
      readonly garbage: Readonly<Record<string, number>>
    }
  | { readonly type: 'failed'; readonly reason: string }

const STEP_MS = 5

class Publishers {
  private readonly devices: PublishingDevice[] = []
  private readonly allowance = new Allowance()
  private published = 0
  private running = false
  private firstAt = 0
  private pace: Pace | undefined
  private stepper: NodeJS.Timeout | undefined
  private turn = 0

  async open({ url, devices, metrics, window }: PublisherSetup): Promise<void> {
    for (const device of devices) {
      const publishing = await PublishingDevice.open(url, device, metrics, window, (one) => this.offer(one))
      publishing.firstKind = this.devices.length
      this.devices.push(publishing)
    }
  }

  run(order: Extract<PublisherOrder, { type: 'run' }>): void {
    for (const device of this.devices) device.begin(order.metrics, order.garbageEvery)
    this.allowance.begin(order.allowed)
    this.published = 0
    this.running = true
    this.firstAt = Date.now()
    this.pace = order.ratePerSecond === undefined ? undefined : new Pace(order.ratePerSecond)
    this.stepper = setInterval(() => {
      this.allowance.step()
      this.offerInTurn()
    }, STEP_MS)
    this.offerInTurn()
  }

  allow({ allowed, withinMs }: Extract<PublisherOrder, { type: 'allow' }>): void {
    this.allowance.extend(allowed, withinMs)
  }

  async stop(): Promise<PublisherNews> {
    this.running = false
    clearInterval(this.stepper)
    const giveUpAt = Date.now() + 20_000
    while (this.devices.some((device) => device.inFlight > 0) && Date.now() < giveUpAt) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    const acknowledged = this.devices.reduce((sum, device) => sum + device.acknowledged, 0)
    const garbage: Record<string, number> = {}
    for (const device of this.devices) {
      for (const [reason, count] of device.garbage) garbage[reason] = (garbage[reason] ?? 0) + count
    }
    return { type: 'stopped', published: this.published, acknowledged, firstAt: this.firstAt, garbage }
  }

  private offerInTurn(): void {
    // Another one is first each time, or the last ones would get nothing when little is allowed.
    this.turn = (this.turn + 1) % Math.max(1, this.devices.length)
    const share = this.pace ? Math.ceil(this.pace.due(this.published) / Math.max(1, this.devices.length)) : undefined
    for (let n = 0; n < this.devices.length; n++) {
      const device = this.devices[(this.turn + n) % this.devices.length]
      if (device) this.offer(device, share)
    }
  }

  private offer(device: PublishingDevice, share = Number.POSITIVE_INFINITY): void {
    if (!this.running) return
    const due = this.pace ? this.pace.due(this.published) : Number.POSITIVE_INFINITY
    const count = Math.min(device.room, this.allowance.now - this.published, due, share)
    if (count <= 0) return
    device.send(count)
    this.published += count
  }
}

/** How many reports may be published in all. */
class Allowance {
  now = 0
  private granted = 0
  private steps = 1

  begin(granted: number): void {
    this.now = granted
    this.granted = granted
  }

  extend(granted: number, withinMs: number): void {
    this.granted = granted
    this.steps = Math.max(1, Math.round(withinMs / STEP_MS))
  }

  step(): void {
    this.now += Math.ceil(Math.max(0, this.granted - this.now) / this.steps)
    this.steps = Math.max(1, this.steps - 1)
  }
}

/** So many a second from now on, in even steps. */
class Pace {
  private readonly startedAt = performance.now()

  constructor(private readonly ratePerSecond: number) {}

  due(published: number): number {
    return Math.floor(((performance.now() - this.startedAt) / 1_000) * this.ratePerSecond) - published
  }
}

class PublishingDevice {
  private connection: DeviceConnection | undefined
  private source: ReportSource
  private readonly topic: string
  private garbageEvery = Number.POSITIVE_INFINITY
  inFlight = 0
  acknowledged = 0
  readonly garbage = new Map<string, number>()
  /** Another one for each device: so a short run has all of them as well. */
  firstKind = 0

  private constructor(
    private readonly device: BenchDevice,
    metrics: number,
    private readonly window: number,
  ) {
    this.topic = topics.telemetry(device.id)
    this.source = new ReportSource(device.components, metrics)
  }

  static async open(
    url: string,
    device: BenchDevice,
    metrics: number,
    window: number,
    onRoom: (device: PublishingDevice) => void,
  ): Promise<PublishingDevice> {
    const publishing = new PublishingDevice(device, metrics, window)
    publishing.connection = await DeviceConnection.open(
      { url, clientId: device.id, ...device.identity },
      {
        onAcknowledged: (ids) => {
          publishing.inFlight -= ids.length
          publishing.acknowledged += ids.length
          onRoom(publishing)
        },
        onClosed: () => fail(`the connection of device ${device.id} was closed`),
      },
    )
    return publishing
  }

  get room(): number {
    return this.window - this.inFlight
  }

  begin(metrics: number, garbageEvery = Number.POSITIVE_INFINITY): void {
    this.source = new ReportSource(this.device.components, metrics)
    this.acknowledged = 0
    this.garbageEvery = garbageEvery
    this.garbage.clear()
  }

  send(count: number): void {
    const payloads: string[] = []
    for (let n = 0; n < count; n++) payloads.push(this.payload())
    this.connection?.publish(this.topic, payloads)
    this.inFlight += count
  }

  private payload(): string {
    const report = this.source.next()
    if (report.sequence % this.garbageEvery !== 0) return report.payload
    const garbage = GARBAGE[(this.firstKind + report.sequence / this.garbageEvery) % GARBAGE.length]
    if (!garbage) return report.payload
    this.garbage.set(garbage.reason, (this.garbage.get(garbage.reason) ?? 0) + 1)
    return garbage.spoil(report)
  }
}

const tell = (news: PublisherNews): void => void process.send?.(news)

function fail(reason: string): never {
  tell({ type: 'failed', reason })
  process.exit(1)
}

const publishers = new Publishers()

async function obey(order: PublisherOrder): Promise<void> {
  switch (order.type) {
    case 'setup':
      await publishers.open(order.setup)
      tell({ type: 'ready' })
      break
    case 'run':
      publishers.run(order)
      break
    case 'allow':
      publishers.allow(order)
      break
    case 'stop':
      tell(await publishers.stop())
      break
  }
}

process.on('message', (order) => {
  obey(order as PublisherOrder).catch((error: Error) => fail(error.message))
})
process.once('disconnect', () => process.exit(0))
