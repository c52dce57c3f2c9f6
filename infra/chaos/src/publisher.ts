import { type BenchDevice, DeviceConnection, ReportSource } from '@ares/bench'
import { topics } from '@ares/proto'
import { DeviceRecord, type Word } from './device-record'
import { TALLY_MS } from './tally'

/**
 * The publishers of a chaos run, in a process of their own: devices that report whatever happens, at a steady rate or as
 * fast as they are let.
 */
export type PublisherOrder =
  | {
      readonly type: 'begin'
      readonly url: string
      readonly devices: readonly BenchDevice[]
      /** Reports a second of all together; undefined: each device fills its window. */
      readonly rate?: number
      readonly until: Word
    }
  /** No new reports; bring the rest to its end, for at most so long. */
  | { readonly type: 'finish'; readonly limitMs: number }

export type PublisherNews =
  | { readonly type: 'begun' }
  | {
      readonly type: 'finished'
      readonly records: readonly DeviceReports[]
      readonly acknowledgements: readonly Acknowledged[]
    }
  | { readonly type: 'failed'; readonly reason: string }

/** Four numbers a report: sequence, component, instant in epoch milliseconds, 1 if it is done. */
export interface DeviceReports {
  readonly deviceId: string
  readonly reports: readonly number[]
}

/** How many PUBACKs came in one half second. */
export interface Acknowledged {
  /** When it began, epoch milliseconds. */
  readonly at: number
  readonly count: number
}

const TICK_MS = 50
const METRICS = 3
/** What the device guide allows in flight, and with receipts, which come a commit later, a second's worth more. */
const WINDOW: Readonly<Record<Word, number>> = { puback: 32, receipt: 64 }

class ChaosDevice {
  private readonly source: ReportSource
  private readonly record: DeviceRecord
  private connection: DeviceConnection | undefined
  private readonly sequences = new Map<number, number>()
  /** Set at the first tick, when every device is connected. */
  private beganAt: number | undefined
  private made = 0
  private stopped = false
  private closed = false

  constructor(
    private readonly url: string,
    private readonly device: BenchDevice,
    /** Reports a second; undefined: as many as it is let. */
    private readonly rate: number | undefined,
    private readonly until: Word,
  ) {
    this.source = new ReportSource(device.components, METRICS)
    this.record = new DeviceRecord(until, WINDOW[until])
  }

  get reports(): DeviceReports {
    return { deviceId: this.device.id, reports: this.record.flat() }
  }

  get unfinished(): number {
    return this.record.unfinished
  }

  /** Connects, and again whenever the connection is lost; resolves at the first success. */
  async stayConnected(): Promise<void> {
    while (!this.closed) {
      try {
        this.connection = await this.connect()
        break
      } catch {
        await pause(200 + Math.random() * 800)
      }
    }
    this.sequences.clear()
    if (this.until === 'receipt') this.connection?.subscribe(topics.receipts(this.device.id))
    this.record.reconnected()
    this.flush()
  }

  tick(now: number): void {
    this.beganAt ??= performance.now()
    if (this.rate !== undefined && !this.stopped) {
      const due = Math.floor(((performance.now() - this.beganAt) / 1_000) * this.rate)
      for (; this.made < due; this.made++) this.record.add(this.source.next())
    }
    this.record.overdue(now)
    this.flush()
  }

  stopMaking(): void {
    this.stopped = true
  }

  close(): void {
    this.closed = true
    this.connection?.close()
  }

  private connect(): Promise<DeviceConnection> {
    const { id, identity } = this.device
    return DeviceConnection.open(
      { url: this.url, clientId: id, ...identity },
      {
        onAcknowledged: (ids) => this.acknowledged(ids),
        onMessage: (_topic, payload) => this.receipted(payload),
        onClosed: () => {
          this.connection = undefined
          void this.stayConnected()
        },
      },
    )
  }

  private acknowledged(ids: readonly number[]): void {
    tally(ids.length)
    for (const id of ids) {
      const sequence = this.sequences.get(id)
      this.sequences.delete(id)
      if (sequence !== undefined) this.record.acknowledged(sequence)
    }
    this.flush()
  }

  private receipted(payload: Buffer): void {
    const { sequences } = JSON.parse(payload.toString()) as { sequences: readonly number[] }
    for (const sequence of sequences) this.record.receipted(sequence)
    this.flush()
  }

  private flush(): void {
    const { connection } = this
    if (!connection?.isOpen) return
    if (this.rate === undefined && this.beganAt !== undefined && !this.stopped) {
      for (let room = this.record.room; room > 0; room--) this.record.add(this.source.next())
    }
    const reports = this.record.take(Date.now())
    if (reports.length === 0) return
    const ids = connection.publish(
      topics.telemetry(this.device.id),
      reports.map((report) => report.payload),
    )
    ids.forEach((id, position) => {
      this.sequences.set(id, reports[position]?.sequence ?? 0)
    })
  }
}

const tell = (news: PublisherNews, then?: () => void): void => void process.send?.(news, undefined, {}, then)

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const acknowledgements = new Map<number, number>()

function tally(count: number): void {
  const at = Math.floor(Date.now() / TALLY_MS) * TALLY_MS
  acknowledgements.set(at, (acknowledgements.get(at) ?? 0) + count)
}

let devices: ChaosDevice[] = []

async function begin({ url, devices: given, rate, until }: Extract<PublisherOrder, { type: 'begin' }>): Promise<void> {
  devices = given.map((device) => new ChaosDevice(url, device, rate && rate / given.length, until))
  for (const device of devices) await device.stayConnected()
  setInterval(() => {
    const now = Date.now()
    for (const device of devices) device.tick(now)
  }, TICK_MS)
  tell({ type: 'begun' })
}

async function finish(limitMs: number): Promise<void> {
  for (const device of devices) device.stopMaking()
  const giveUpAt = Date.now() + limitMs
  while (devices.some((device) => device.unfinished > 0) && Date.now() < giveUpAt) await pause(50)
  for (const device of devices) device.close()
  const records = devices.map((device) => device.reports)
  const tallies = [...acknowledgements].map(([at, count]) => ({ at, count }))
  tell({ type: 'finished', records, acknowledgements: tallies }, () => process.exit(0))
}

process.on('message', (message) => {
  const order = message as PublisherOrder
  const work = order.type === 'begin' ? begin(order) : finish(order.limitMs)
  work.catch((error: Error) => tell({ type: 'failed', reason: error.message }))
})
process.once('disconnect', () => process.exit(0))
