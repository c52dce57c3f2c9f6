import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BenchProcess, COMMIT_TIMES, makeBenchFleet } from '@ares/bench'
import { type PartEvent, type Progress, Stack } from '@ares/embedded'
import { listenerClientId } from '@ares/proto'
import { BrokerWatch } from './broker-watch'
import type { GovernorCase } from './governor-cases'
import { Link } from './link'
import type { PublisherNews, PublisherOrder } from './publisher'
import { CaseRows, type Reconciliation } from './reconciliation'
import { type Moments, meanRate, returnedAfterMs } from './recovery'
import { TALLY_MS } from './tally'

export interface GovernorOptions {
  /** How long the cause lasts. */
  readonly seconds: number
  readonly devices: number
  readonly emqx?: string
  readonly progress?: Progress
  readonly onEvent?: (event: PartEvent) => void
  /** Rejects when somebody wants it to stop. */
  readonly stopped: Promise<never>
}

/** Messages a second, while all was well, while the cause was there, and since the rate has returned. */
export interface Rates {
  readonly before: number
  readonly during: number
  readonly after: number
}

export interface GovernorResult extends Reconciliation {
  readonly name: string
  readonly what: string
  readonly isGoverned: boolean
  /** What the broker took from the devices: their PUBACKs. */
  readonly admitted: Rates
  /** Rows, at the time of their commit. */
  readonly stored: Rates
  /** From the end of the cause until the devices have had 90 % of their rate before, for two seconds; -1: they had not. */
  readonly returnMs: number
  /** From the end of the cause until nothing waited at the broker any more; -1: it did to the end. */
  readonly drainedMs: number
  /** Messages in the broker at most, and what the governor promises. */
  readonly greatestQueue: number
  readonly queueBound: number
  /** Messages a second of all devices: the lowest rate that the broker was set to. */
  readonly lowestRate: number
}

/** True when what is promised was kept. Of a run that nobody governs only this: nothing is there twice. */
export const isKept = (result: GovernorResult): boolean =>
  result.duplicates === 0 &&
  result.strangers === 0 &&
  result.acknowledged > 0 &&
  (!result.isGoverned ||
    (result.missing === 0 &&
      result.greatestQueue <= result.queueBound &&
      result.returnMs >= 0 &&
      result.returnMs <= RETURN_WITHIN_MS))

/** Runs one case on a stack of its own, with the limits of emqx.conf: what one leaves behind does not touch the next. */
export async function runGovernorCase(one: GovernorCase, options: GovernorOptions): Promise<GovernorResult> {
  const toDatabase = await Link.open(() => stack.ports.postgres)
  const stack = new Stack({
    stateDir: mkdtempSync(join(tmpdir(), 'ares-governor-')),
    ports: { http: 0, mqtt: 0, wss: 0 },
    listeners: 2,
    emqx: options.emqx,
    postgresSettings: COMMIT_TIMES,
    detours: { database: toDatabase.port },
    env: {
      api: { ARES_GOVERNOR: String(one.isGoverned) },
      listener: { ARES_LISTENER_INSTANCE: INSTANCES[0] },
      'listener-2': { ARES_LISTENER_INSTANCE: INSTANCES[1] },
    },
    progress: options.progress,
    onEvent: options.onEvent,
  })
  try {
    await Promise.race([stack.start(), options.stopped])
    return await Promise.race([measure(one, options, stack, toDatabase), options.stopped])
  } finally {
    await stack.stop()
    await toDatabase.close()
    stack.state.remove()
  }
}

async function measure(
  { name, what, isGoverned, strike }: GovernorCase,
  { seconds, devices: count }: GovernorOptions,
  stack: Stack,
  toDatabase: Link,
): Promise<GovernorResult> {
  const devices = await makeBenchFleet(stack.client(), { devices: count, components: 1, wantsReceipts: false })
  const rows = CaseRows.since(stack.urls.database, new Date())
  const publisher = BenchProcess.start<PublisherOrder, PublisherNews>(__dirname, 'publisher')
  const watch = new BrokerWatch(stack, INSTANCES.map(listenerClientId))
  try {
    publisher.tell({ type: 'begin', url: stack.urls.mqtt, devices, until: 'puback' })
    await publisher.next('begun')
    await sleep(WARM_UP_MS)
    const wellAt = Date.now()
    const carried = toDatabase.carried
    await sleep(BEFORE_MS)
    const bytesPerSecond = ((toDatabase.carried - carried) * 1_000) / (Date.now() - wellAt)
    const struckAt = Date.now()
    await strike({ stack, toDatabase, bytesPerSecond, lastsMs: seconds * 1_000 })
    const curedAt = Date.now()
    await sleep(AFTER_MS)
    const endsAt = Date.now()
    publisher.tell({ type: 'finish', limitMs: FINISH_MS })
    const { records, acknowledgements } = await publisher.next('finished', FINISH_MS + 30_000)
    await untilDrained(watch)
    const found = await rows.reconcile(devices, records, RECONCILE_MS)
    const commits = await rows.commits(TALLY_MS)
    const samples = watch.samples.filter(({ at }) => at >= struckAt)
    const full = Math.max(...watch.samples.map(({ rate }) => rate))
    const before = meanRate(acknowledgements, wellAt, struckAt)
    const returnMs = returnedAfterMs(acknowledgements, { from: curedAt, to: endsAt, rate: before * RETURNED })
    const returnedAt = curedAt + Math.max(0, returnMs)
    const rates = (moments: Moments) => ({
      before: meanRate(moments, wellAt, struckAt),
      during: meanRate(moments, struckAt, curedAt),
      after: meanRate(moments, returnedAt, endsAt),
    })
    return {
      name,
      what,
      isGoverned,
      ...found,
      admitted: rates(acknowledgements),
      stored: rates(commits),
      returnMs,
      drainedMs: drainedAfterMs(watch, curedAt),
      greatestQueue: Math.max(0, ...samples.map(({ queue }) => queue)),
      queueBound: full * SECONDS_UNTIL_SLOW + (FLOOR * (curedAt - struckAt)) / 1_000,
      lowestRate: Math.min(...samples.map(({ rate }) => rate)),
    }
  } finally {
    await watch.stop()
    await publisher.stop()
  }
}

async function untilDrained(watch: BrokerWatch): Promise<void> {
  const known = watch.samples.length
  for (const end = Date.now() + DRAIN_MS; Date.now() < end; await sleep(500)) {
    if (watch.samples.length > known && (watch.samples.at(-1)?.queue ?? 0) <= NOTHING_WAITS) return
  }
}

/** The first moment since then at which nothing waited any more. */
function drainedAfterMs({ samples }: BrokerWatch, since: number): number {
  const empty = samples.find(({ at, queue }) => at >= since && queue <= NOTHING_WAITS)
  return empty ? empty.at - since : -1
}

/** Which listener is which: the broker is asked for their sessions. */
const INSTANCES = ['0000000a', '0000000b'] as const

const WARM_UP_MS = 15_000
const BEFORE_MS = 10_000
const AFTER_MS = 25_000
const FINISH_MS = 90_000
const DRAIN_MS = 300_000
const RECONCILE_MS = 60_000

const RETURNED = 0.9
const RETURN_WITHIN_MS = 10_000
/** A queue that is as short as this is being delivered. */
const NOTHING_WAITS = 500

/**
 * The bound of the broker's queue while somebody governs: what comes in until the rate is down, then the floor.
 * A listener counts as gone after 3 s of silence, a change holds within a second, and halving down from the full rate
 * admits it twice more.
 */
const SECONDS_UNTIL_SLOW = 6
/** ARES_GOVERNOR_FLOOR, its default. */
const FLOOR = 500
