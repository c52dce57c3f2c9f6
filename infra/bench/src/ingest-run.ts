import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PartName, Stack } from '@ares/embedded'
import { listenerClientId } from '@ares/proto'
import type { BenchDevice } from './bench-fleet'
import { BenchProcess } from './bench-process'
import type { Committed, CommittedRows } from './committed'
import { copyRowsPerSecond } from './copy-ceiling'
import { floorIdentity } from './floor-identity'
import type { FloorNews, FloorOrder } from './floor-subscriber'
import type { IngestOptions } from './ingest-options'
import { cpuMicros, residentMegabytes } from './process-cost'
import type { PublisherNews, PublisherOrder } from './publisher'

/** What one number of metrics a report gave. CPU is in microseconds a message, by process. */
export interface IngestResult {
  readonly metrics: number
  readonly floor: { readonly messagesPerSecond: number; readonly cpuMicros: Readonly<Record<string, number>> }
  readonly ares: {
    readonly messagesPerSecond: number
    readonly rowsPerSecond: number
    /** Listener and api together. */
    readonly cpuMicrosPerReport: number
    readonly cpuMicros: Readonly<Record<string, number>>
    readonly acknowledged: number
    readonly committed: number
    readonly listenerMegabytes: { readonly begin: number; readonly end: number; readonly most: number }
  }
  readonly copy: { readonly rowsPerSecond: number }
  /** Publish to commit at half of what was committed at full load. */
  readonly latency: { readonly ratePerSecond: number; readonly p50Ms: number; readonly p99Ms: number }
  readonly ratio: {
    readonly floor: number
    readonly copy: number
    /** That of the floor in every turn, in their order. */
    readonly floorOfEachRound: readonly number[]
  }
}

type PublisherProcess = BenchProcess<PublisherOrder, PublisherNews>

export interface IngestBench {
  readonly stack: Stack
  readonly options: IngestOptions
  readonly publishers: PublisherProcess
  readonly rows: CommittedRows
}

/** Starts the publishers and connects their devices. */
export async function startPublishers(
  url: string,
  devices: readonly BenchDevice[],
  options: Pick<IngestOptions, 'window'>,
): Promise<PublisherProcess> {
  const publishers = BenchProcess.start<PublisherOrder, PublisherNews>(__dirname, 'publisher')
  publishers.tell({ type: 'setup', setup: { url, devices, metrics: 1, window: options.window } })
  await publishers.next('ready')
  return publishers
}

/** Floor, Ares, COPY and latency for one size of report. */
export async function runIngest(bench: IngestBench, metrics: number): Promise<IngestResult> {
  const rounds: Array<{ readonly floor: IngestResult['floor']; readonly ares: IngestResult['ares'] }> = []
  for (let round = 0; round < bench.options.rounds; round++) {
    rounds.push({ floor: await measureFloor(bench, metrics), ares: await measureAres(bench, metrics) })
  }
  const ratioOf = ({ floor, ares }: (typeof rounds)[number]) => ares.messagesPerSecond / floor.messagesPerSecond
  const inOrder = [...rounds].sort((a, b) => ratioOf(a) - ratioOf(b))
  const middle = inOrder[Math.floor((inOrder.length - 1) / 2)]
  if (!middle) throw new Error('there was no round')
  const { floor, ares } = middle
  const copy = { rowsPerSecond: await copyRowsPerSecond(bench.rows.client) }
  const latency = await measureLatency(bench, metrics, ares.messagesPerSecond / 2)
  const ratio = {
    floor: ratioOf(middle),
    copy: ares.rowsPerSecond / copy.rowsPerSecond,
    floorOfEachRound: rounds.map(ratioOf),
  }
  return { metrics, floor, ares, copy, latency, ratio }
}

const WARM_UP_SECONDS = 3

async function measureFloor(bench: IngestBench, metrics: number): Promise<IngestResult['floor']> {
  const { stack, options } = bench
  await Promise.all(listenersOf(options).map((name) => stack.stopPart(name)))
  const subscriber = BenchProcess.start<FloorOrder, FloorNews>(__dirname, 'floor-subscriber')
  try {
    const identity = options.broker
      ? {}
      : { ...(await floorIdentity(stack)), caPem: readFileSync(stack.caFile, 'utf8') }
    const url = options.broker ?? `mqtts://localhost:${stack.ports.mqttServices}`
    const clientId = listenerClientId(randomBytes(4).toString('hex'))
    subscriber.tell({ type: 'setup', setup: { url, clientId, ...identity } })
    await subscriber.next('ready')
    const count = async () => {
      subscriber.tell({ type: 'count' })
      return subscriber.next('counted')
    }
    const received = async () => (await count()).messages
    await publish(bench, metrics, { seconds: WARM_UP_SECONDS, received })
    await untilStill(received)
    const cost = new Cost(bench, { subscriber: subscriber.pid })
    const before = await received()
    const { firstAt } = await publish(bench, metrics, { seconds: options.seconds, received })
    await untilStill(received)
    const { messages, lastAt } = await count()
    const measured = messages - before
    return { messagesPerSecond: measured / ((lastAt - firstAt) / 1_000), cpuMicros: cost.perMessage(measured) }
  } finally {
    await subscriber.stop()
    await Promise.all(listenersOf(options).map((name) => stack.startPart(name)))
  }
}

async function measureAres(bench: IngestBench, metrics: number): Promise<IngestResult['ares']> {
  const { stack, rows, options } = bench
  const received = () => settledByListeners(stack, options)
  await rows.clear()
  const warm = await publish(bench, metrics, { seconds: WARM_UP_SECONDS, received })
  await rows.settle(warm.acknowledged)
  await rows.clear()

  const listener = stack.pidOf('listener') ?? 0
  const memory = new MemoryWatch(listener)
  const cost = new Cost(bench, Object.fromEntries(listenersOf(options).map((name) => [name, stack.pidOf(name) ?? 0])))
  toggleProfiles(bench)
  const { firstAt, acknowledged } = await publish(bench, metrics, { seconds: options.seconds, received })
  toggleProfiles(bench)
  const committed = await rows.settle(acknowledged)
  const cpu = cost.perMessage(committed)
  const { lastAt } = await rows.describe()
  const perSecond = committed / ((lastAt - firstAt) / 1_000)
  const ours = ['listener', 'listener-2', 'api'].reduce((sum, name) => sum + (cpu[name] ?? 0), 0)
  return {
    messagesPerSecond: perSecond,
    rowsPerSecond: perSecond,
    cpuMicrosPerReport: ours,
    cpuMicros: cpu,
    acknowledged,
    committed,
    listenerMegabytes: memory.stop(),
  }
}

async function measureLatency(bench: IngestBench, metrics: number, rate: number): Promise<IngestResult['latency']> {
  const { rows, stack, options } = bench
  await rows.clear()
  const received = () => settledByListeners(stack, options)
  const { acknowledged } = await publish(bench, metrics, { seconds: options.seconds, received, ratePerSecond: rate })
  await rows.settle(acknowledged)
  const { p50Ms, p99Ms }: Committed = await rows.describe()
  await rows.clear()
  return { ratePerSecond: rate, p50Ms, p99Ms }
}

interface Load {
  readonly seconds: number
  readonly ratePerSecond?: number
  /** How many messages the receiver is done with, since whenever. */
  received(): Promise<number>
}

/**
 * How often the publishers are told how far they may go. Each look at the listener's metrics is work that it would not have
 * otherwise; but more than `outstanding` in this time cannot be measured, and the floor must not end there.
 */
const ALLOW_EVERY_MS = 100

/** Publishes for a while, never more than `outstanding` ahead of the receiver. Resolves when all is acknowledged. */
export async function publish(
  { publishers, options }: Pick<IngestBench, 'publishers' | 'options'>,
  metrics: number,
  { seconds, ratePerSecond, received }: Load,
): Promise<Extract<PublisherNews, { type: 'stopped' }>> {
  const before = await received()
  publishers.tell({ type: 'run', metrics, allowed: options.outstanding, ratePerSecond })
  const end = Date.now() + seconds * 1_000
  while (Date.now() < end) {
    await sleep(ALLOW_EVERY_MS)
    const allowed = (await received()) - before + options.outstanding
    publishers.tell({ type: 'allow', allowed, withinMs: ALLOW_EVERY_MS })
  }
  publishers.tell({ type: 'stop' })
  return publishers.next('stopped')
}

/** See profile-on-signal.cjs. */
function toggleProfiles({ stack, options }: IngestBench): void {
  if (!options.profile) return
  const brokers: PartName[] = options.emqx ? [] : ['broker']
  for (const name of ['api', ...listenersOf(options), ...brokers] as const) stack.kill(name, 'SIGUSR2')
}

async function untilStill(received: () => Promise<number>): Promise<void> {
  for (let known = -1, now = await received(); now !== known; now = await received()) {
    known = now
    await sleep(300)
  }
}

export const listenersOf = ({ listeners }: Pick<IngestOptions, 'listeners'>): PartName[] =>
  listeners === 2 ? ['listener', 'listener-2'] : ['listener']

/** Messages whose fate the listeners know: committed, or a dead letter. */
export async function settledByListeners(stack: Stack, options: Pick<IngestOptions, 'listeners'>): Promise<number> {
  let settled = 0
  for (const name of listenersOf(options)) {
    const answer = await fetch(`${stack.opsUrl(name)}/metrics?name[]=ares_listener_results_total`)
    const text = await answer.text()
    for (const [, count] of text.matchAll(/^ares_listener_results_total\{.*\} (\S+)$/gm)) settled += Number(count)
  }
  return settled
}

/** CPU of every process that takes part, from its making on. */
class Cost {
  private readonly before: ReadonlyMap<string, readonly [number, number]>

  constructor({ stack, publishers }: IngestBench, more: Readonly<Record<string, number>>) {
    const parts: Record<string, number> = { publishers: publishers.pid, ...more }
    for (const name of ['broker', 'api', 'postgres'] as const) parts[name] = stack.pidOf(name) ?? 0
    this.before = new Map(Object.entries(parts).map(([name, pid]) => [name, [pid, cpuMicros(pid)]]))
  }

  perMessage(messages: number): Record<string, number> {
    const entries = [...this.before].map(
      ([name, [pid, before]]) => [name, (cpuMicros(pid) - before) / messages] as const,
    )
    return Object.fromEntries(entries)
  }
}

class MemoryWatch {
  private readonly samples: number[] = []
  private readonly timer: NodeJS.Timeout

  constructor(private readonly pid: number) {
    this.sample()
    this.timer = setInterval(() => this.sample(), 500)
  }

  stop(): { begin: number; end: number; most: number } {
    clearInterval(this.timer)
    this.sample()
    return { begin: this.samples[0] ?? 0, end: this.samples.at(-1) ?? 0, most: Math.max(...this.samples) }
  }

  private sample(): void {
    this.samples.push(Math.round(residentMegabytes(this.pid)))
  }
}
