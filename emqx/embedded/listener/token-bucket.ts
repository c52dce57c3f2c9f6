/**
 * Tokens that come in at a steady rate. Who wants more than there are waits in line, first come first served, until there
 * are tokens for all he wants. At most a quarter of a second's tokens are kept, so that no burst is granted.
 */
export class TokenBucket {
  private tokens: number
  private filledAt = performance.now()
  private readonly line: Waiter[] = []
  private timer: NodeJS.Timeout | undefined

  /** @param ratePerSecond may be Infinity: then nobody waits */
  constructor(private ratePerSecond: number) {
    this.tokens = this.capacity
  }

  get rate(): number {
    return this.ratePerSecond
  }

  /** Holds for those who wait as well. */
  setRate(ratePerSecond: number): void {
    this.fill()
    this.ratePerSecond = ratePerSecond
    this.tokens = Math.min(this.tokens, Math.max(this.capacity, 0))
    this.serve()
  }

  /** True: taken at once. False: `ready` is called when they are taken, unless `forget` comes first. */
  take(amount: number, ready: () => void): boolean {
    if (this.ratePerSecond === Number.POSITIVE_INFINITY) return true
    this.fill()
    if (this.line.length === 0 && this.tokens >= amount) {
      this.tokens -= amount
      return true
    }
    this.line.push({ amount, ready })
    if (this.line.length === 1) this.schedule()
    return false
  }

  forget(ready: () => void): void {
    const at = this.line.findIndex((waiter) => waiter.ready === ready)
    if (at < 0) return
    this.line.splice(at, 1)
    if (at === 0) this.serve()
  }

  close(): void {
    clearTimeout(this.timer)
    this.line.length = 0
  }

  private get capacity(): number {
    return this.ratePerSecond === Number.POSITIVE_INFINITY ? 0 : Math.max(1, this.ratePerSecond / 4)
  }

  private fill(): void {
    const now = performance.now()
    const earned =
      this.ratePerSecond === Number.POSITIVE_INFINITY ? 0 : ((now - this.filledAt) / 1000) * this.ratePerSecond
    this.filledAt = now
    // Who is first in line may want more than the capacity: it grows for him.
    this.tokens = Math.min(this.tokens + earned, Math.max(this.capacity, this.line[0]?.amount ?? 0))
  }

  private serve(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.fill()
    while (this.line[0] && (this.tokens >= this.line[0].amount || this.ratePerSecond === Number.POSITIVE_INFINITY)) {
      const waiter = this.line.shift()
      if (!waiter) break
      if (this.ratePerSecond !== Number.POSITIVE_INFINITY) this.tokens -= waiter.amount
      waiter.ready()
    }
    if (this.line.length > 0) this.schedule()
  }

  private schedule(): void {
    if (this.timer) return
    const missing = (this.line[0]?.amount ?? 0) - this.tokens
    const waitMs = this.ratePerSecond > 0 ? Math.ceil((missing / this.ratePerSecond) * 1000) : MAX_WAIT_MS
    this.timer = setTimeout(() => this.serve(), Math.min(Math.max(waitMs, 1), MAX_WAIT_MS))
    this.timer.unref()
  }
}

interface Waiter {
  readonly amount: number
  readonly ready: () => void
}

const MAX_WAIT_MS = 1000
