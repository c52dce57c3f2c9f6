import { DomainError } from '@ares/chassis'
import { LRUCache } from 'lru-cache'

/**
 * Slows down whoever tries without a right to: failed attempts are counted per address for a quarter of an hour. And
 * bounds the work of the routes that anybody may call: so many at once, the rest is told to come again.
 */
export class AttemptLimit {
  private readonly failures = new LRUCache<string, number>({ max: 30_000, ttl: WINDOW_MS, noUpdateTTL: true })
  private running = 0

  constructor(
    private readonly mostFailures = 60,
    private readonly mostAtOnce = 32,
  ) {}

  /** @throws DomainError `too_many_attempts`, `too_busy`, and what `work` throws; a DomainError counts as a failure
   *  unless it is about us (`unavailable`) */
  async attempt<T>(address: string, work: () => Promise<T>): Promise<T> {
    if (this.running >= this.mostAtOnce) {
      throw new DomainError('too_many', 'too_busy', 'Too many such requests at once. Try again.', {
        retryAfterSeconds: 1,
      })
    }
    // Counted before the outcome is known, so that many at once are counted, too.
    const count = this.failures.get(address) ?? 0
    if (count >= this.mostFailures) {
      const retryAfterSeconds = Math.ceil(this.failures.getRemainingTTL(address) / 1_000)
      throw new DomainError('too_many', 'too_many_attempts', 'Too many failed attempts. Wait, then try again.', {
        retryAfterSeconds,
      })
    }
    this.failures.set(address, count + 1)
    this.running += 1
    let failed = false
    try {
      return await work()
    } catch (error) {
      failed = error instanceof DomainError && error.kind !== 'unavailable'
      throw error
    } finally {
      this.running -= 1
      if (!failed) this.failures.set(address, Math.max(0, (this.failures.get(address) ?? 0) - 1))
    }
  }
}

const WINDOW_MS = 15 * 60_000
