import { DomainError } from '@ares/chassis'
import { LRUCache } from 'lru-cache'

/**
 * Slows the guessing of passwords. Attempts that failed are counted for a quarter of an hour per
 *  - e-mail and address together (10): one guesser is stopped, and the owner elsewhere is not locked out with him;
 *  - address (100): one guesser who tries many accounts;
 *  - e-mail (100): many guessers at one account.
 * Memory is bounded: the least recently used counters are forgotten. Counts live in this process; with n replicas the
 * limits are n times as high.
 */
export class LoginLimit {
  private readonly counters = new LRUCache<string, number>({ max: 30_000, ttl: WINDOW_MS, noUpdateTTL: true })

  /** Counts the attempt before its outcome is known, so that many at once are counted too.
   *  @throws DomainError `too_many_attempts` */
  begin(email: string, address: string): void {
    for (const [key, limit] of keysOf(email, address)) {
      if ((this.counters.get(key) ?? 0) < limit) continue
      throw new DomainError(
        'too_many',
        'too_many_attempts',
        'Too many failed attempts to log in. Wait, then try again.',
        {
          retryAfterSeconds: Math.ceil(this.counters.getRemainingTTL(key) / 1_000),
        },
      )
    }
    for (const [key] of keysOf(email, address)) this.counters.set(key, (this.counters.get(key) ?? 0) + 1)
  }

  /** The attempt was a success: it does not count. */
  succeeded(email: string, address: string): void {
    for (const [key] of keysOf(email, address)) {
      const count = this.counters.get(key)
      if (count !== undefined) this.counters.set(key, Math.max(0, count - 1))
    }
  }
}

const WINDOW_MS = 15 * 60_000

const keysOf = (email: string, address: string): Array<readonly [key: string, limit: number]> => [
  [`both ${email} ${address}`, 10],
  [`address ${address}`, 100],
  [`email ${email}`, 100],
]
