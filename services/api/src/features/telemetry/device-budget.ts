import { LRUCache } from 'lru-cache'

export interface BudgetLimits {
  /** Rows that a device may have stored per second, for long. */
  readonly ratePerSecond: number
  /** Rows that it may have saved up: a device that was cut off sends its backlog at once. */
  readonly burst: number
  /** How long everything of a device is refused once its bucket was empty. */
  readonly overMs?: number
}

/** What was refused of one device since it was last asked. */
export interface OverBudget {
  readonly deviceId: string
  readonly since: number
  readonly lastAt: number
  readonly refused: number
}

/**
 * A bucket of tokens for each device, one token a row, so that one device in a loop hurts only itself.
 *
 *   WITHIN ──a report costs more than is there──▶ OVER ──overMs later──▶ WITHIN   (the bucket fills in both states)
 *
 * While OVER, all that the device reports becomes a dead letter (over_budget), and can be replayed. The pause keeps a
 * device in a loop from having every nth report stored at random. Buckets are in this process's memory: with n replicas
 * of api, a device whose reports are spread over all of them has up to n budgets.
 */
export class DeviceBudget {
  /** A bucket that is forgotten is a full one; with this many devices the oldest has had the time to fill. */
  private readonly buckets = new LRUCache<string, Bucket>({ max: 200_000 })
  private refusals = new Map<string, OverBudget>()
  private readonly overMs: number

  constructor(
    private readonly limits: BudgetLimits,
    private readonly now: () => number = Date.now,
  ) {
    this.overMs = limits.overMs ?? 30_000
  }

  /** @returns false when the device is over its budget: nothing was taken then */
  take(deviceId: string, cost: number): boolean {
    const now = this.now()
    let bucket = this.buckets.get(deviceId)
    if (!bucket) {
      bucket = { tokens: this.limits.burst, filledAt: now, overUntil: 0 }
      this.buckets.set(deviceId, bucket)
    }
    this.fill(bucket, now)
    if (now < bucket.overUntil) return false
    if (bucket.tokens < cost) {
      bucket.overUntil = now + this.overMs
      return false
    }
    bucket.tokens -= cost
    return true
  }

  /** What was taken for something that did not happen. */
  giveBack(deviceId: string, cost: number): void {
    const bucket = this.buckets.get(deviceId)
    if (bucket) bucket.tokens = Math.min(this.limits.burst, bucket.tokens + cost)
  }

  /** Counts a report that was refused and is stored as a dead letter. @param at epoch milliseconds */
  noteRefused(deviceId: string, at: number): void {
    const known = this.refusals.get(deviceId)
    this.refusals.set(deviceId, {
      deviceId,
      since: Math.min(known?.since ?? at, at),
      lastAt: Math.max(known?.lastAt ?? at, at),
      refused: (known?.refused ?? 0) + 1,
    })
  }

  /** What was noted since the last call. */
  takeRefusals(): OverBudget[] {
    const { refusals } = this
    this.refusals = new Map()
    return [...refusals.values()]
  }

  /** Puts back what could not be written. */
  restoreRefusals(refusals: readonly OverBudget[]): void {
    for (const given of refusals) {
      const known = this.refusals.get(given.deviceId)
      this.refusals.set(given.deviceId, {
        deviceId: given.deviceId,
        since: Math.min(given.since, known?.since ?? given.since),
        lastAt: Math.max(given.lastAt, known?.lastAt ?? given.lastAt),
        refused: given.refused + (known?.refused ?? 0),
      })
    }
  }

  private fill(bucket: Bucket, now: number): void {
    const { ratePerSecond, burst } = this.limits
    const earned = (Math.max(0, now - bucket.filledAt) / 1_000) * ratePerSecond
    bucket.tokens = Math.min(burst, bucket.tokens + earned)
    bucket.filledAt = now
  }
}

interface Bucket {
  tokens: number
  filledAt: number
  overUntil: number
}
