import { randomUUID } from 'node:crypto'
import { Backoff } from '@ares/chassis'

/**
 * Batcher: collects items and commits them together.
 *
 *   OPEN ──full | old, and a call is free──▶ SENDING ──committed──▶ RELEASED    (each item is settled, in order)
 *                                              │  ▲
 *                              failed ─────────┤  └──waited── RETRYING         (same batch id; everything stays held)
 *                                              │
 *                              invalid ────────┴─▶ SPLIT ──▶ two halves SENDING, one after the other, down to one item
 *                                                    └─one item──▶ CONDEMNED ──▶ SENDING as what `condemn` makes of it
 *
 * - Full: `maxItems` or `maxBytes`. Old: its first item waits for `maxAgeMs`, or longer when commits are slow (see
 *   `ageLimitMs`): then larger batches cost the store less, and nobody waits more than about twice as long.
 * - At most `maxInFlight` batches are SENDING, RETRYING or SPLIT. Beyond that the open batch grows; its bound is the
 *   session's: nothing is acknowledged, so the broker stops at receiveMaximum and memory ends at `maxHeldBytes`. What
 *   closed connections leave behind ends at twice that, see `trim`.
 * - An item that is invalid even condemned is held and tried again for ever: then it is not the item that is wrong, and
 *   to let go of it would lose it in silence. Health and the log say so.
 */
export class Batcher<Item extends Settleable> {
  private open: Item[] = []
  private openBytes = 0
  private openedAt = 0
  private inFlight = 0
  private timer: NodeJS.Timeout | undefined
  private draining = false
  private commitMs = 0
  private idle: Array<() => void> = []
  private readonly stopping = new AbortController()

  constructor(
    private readonly limits: BatchLimits,
    private readonly work: BatchWork<Item>,
  ) {}

  /** Items that are not committed. */
  get pending(): { readonly open: number; readonly batchesInFlight: number } {
    return { open: this.open.length, batchesInFlight: this.inFlight }
  }

  add(item: Item): void {
    if (this.open.length === 0) this.openedAt = performance.now()
    this.open.push(item)
    this.openBytes += item.bytes
    this.send()
  }

  /** Sends what is open at once, and resolves when everything is committed. */
  drain(): Promise<void> {
    this.draining = true
    this.send()
    return this.isIdle ? Promise.resolve() : new Promise((resolve) => this.idle.push(resolve))
  }

  /**
   * Lets go of the open batch when it is larger than this. Called when the connection has closed: all of it comes again on
   * the next one. What one connection can hold is kept all the same, in case the broker died and its session with it; but
   * not what several have left behind, or an api that is away would fill our memory with each reconnect.
   */
  trim(most: { readonly items: number; readonly bytes: number }): void {
    if (this.open.length <= most.items && this.openBytes <= most.bytes) return
    this.open = []
    this.openBytes = 0
    this.schedule()
    this.resolveIdle()
  }

  /** Gives up: calls that run are cancelled, nothing of them is settled. */
  stop(): void {
    this.stopping.abort()
    clearTimeout(this.timer)
  }

  /** How long the first item of a batch waits, in milliseconds: half a commit, within 1 and 10 times `maxAgeMs`. */
  get ageLimitMs(): number {
    return Math.min(Math.max(this.limits.maxAgeMs, this.commitMs / 2), this.limits.maxAgeMs * 10)
  }

  private get isIdle(): boolean {
    return this.open.length === 0 && this.inFlight === 0
  }

  private send(): void {
    if (this.stopping.signal.aborted) return
    while (this.open.length > 0 && this.inFlight < this.limits.maxInFlight && this.isDue) {
      void this.run(this.takeBatch())
    }
    this.schedule()
  }

  private get isDue(): boolean {
    return (
      this.draining ||
      this.open.length >= this.limits.maxItems ||
      this.openBytes >= this.limits.maxBytes ||
      performance.now() - this.openedAt >= this.ageLimitMs
    )
  }

  private takeBatch(): Item[] {
    let count = 0
    let bytes = 0
    while (count < this.open.length && count < this.limits.maxItems) {
      const next = this.open[count]?.bytes ?? 0
      if (count > 0 && bytes + next > this.limits.maxBytes) break
      bytes += next
      count++
    }
    const batch = this.open.slice(0, count)
    this.open = this.open.slice(count)
    this.openBytes -= bytes
    this.openedAt = performance.now()
    return batch
  }

  private schedule(): void {
    if (this.open.length === 0) {
      clearTimeout(this.timer)
      this.timer = undefined
    }
    if (this.timer || this.open.length === 0 || this.inFlight >= this.limits.maxInFlight) return
    const wait = Math.max(1, this.ageLimitMs - (performance.now() - this.openedAt))
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.send()
    }, wait)
  }

  private async run(items: readonly Item[]): Promise<void> {
    this.inFlight++
    await this.deliver(items)
    this.inFlight--
    this.send()
    this.resolveIdle()
  }

  private resolveIdle(): void {
    if (this.isIdle) for (const resolve of this.idle.splice(0)) resolve()
  }

  /** Resolves when every item is settled, or the batcher is stopped. Never throws. */
  private async deliver(items: readonly Item[]): Promise<void> {
    const batch = { id: randomUUID(), items }
    const backoff = new Backoff(this.limits.retryFirstMs, this.limits.retryMaxMs)
    const { signal } = this.stopping
    while (!signal.aborted) {
      const startedAt = performance.now()
      let afterwards: (() => void) | undefined
      try {
        afterwards = await this.work.commit(batch, signal)
      } catch (error) {
        if (signal.aborted) return
        const next = await this.afterFailure(batch, error)
        if (next === 'done') return
        await pause(backoff.next(), signal)
        continue
      }
      this.noteCommit(performance.now() - startedAt, items.length)
      for (const item of items) item.settle()
      afterwards?.()
      return
    }
  }

  private async afterFailure(batch: Batch<Item>, error: unknown): Promise<'done' | 'again'> {
    const { items } = batch
    const [first] = items
    const isInvalid = this.work.failureOf(error) === 'invalid'
    if (isInvalid && items.length > 1) {
      const middle = items.length >> 1
      await this.deliver(items.slice(0, middle))
      await this.deliver(items.slice(middle))
      return 'done'
    }
    const condemned = isInvalid && first ? this.work.condemn(first, error) : 'keep'
    if (condemned === 'keep') {
      this.work.onRetry(error, batch)
      return 'again'
    }
    if (condemned !== 'elsewhere') await this.deliver([condemned])
    return 'done'
  }

  /** A moving average over about eight commits. */
  private noteCommit(tookMs: number, size: number): void {
    this.commitMs = this.commitMs === 0 ? tookMs : this.commitMs + (tookMs - this.commitMs) / 8
    this.work.onCommitted(tookMs, size)
  }
}

/** Something that waits for its commit. */
export interface Settleable {
  /** What it weighs, for `maxBytes`. */
  readonly bytes: number
  /** Called once it is committed. */
  settle(): void
}

export interface Batch<Item> {
  /** A UUID that stays the same when the batch is sent again. */
  readonly id: string
  readonly items: readonly Item[]
}

export interface BatchLimits {
  readonly maxItems: number
  readonly maxBytes: number
  readonly maxAgeMs: number
  readonly maxInFlight: number
  readonly retryFirstMs: number
  readonly retryMaxMs: number
}

/** What a batcher needs to know about its items. */
export interface BatchWork<Item> {
  /** Commits a batch. @returns what to do once its items are settled @throws when nothing is known to be committed */
  commit(batch: Batch<Item>, signal: AbortSignal): Promise<(() => void) | undefined>
  /** Whether the batch will be refused however often it is sent. */
  failureOf(error: unknown): 'invalid' | 'try_again'
  /** An item that is refused alone: what to send in its place, `elsewhere` if another one settles it, or `keep` trying. */
  condemn(item: Item, error: unknown): Item | 'elsewhere' | 'keep'
  onCommitted(tookMs: number, size: number): void
  onRetry(error: unknown, batch: Batch<Item>): void
}

/** Waits, unless the batcher is stopped. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
  })
}
