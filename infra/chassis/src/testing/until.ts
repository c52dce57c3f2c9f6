import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Waits for a condition, not for a time: looks again and again until there is something.
 * @param what named when it does not come; default: the source of `look`
 * @param limitMs generous, because a busy machine is no failure, and shorter than what jest gives a test, so that this
 *  error is the one that is seen
 * @returns what was found
 */
export async function until<T>(
  look: () => T | Promise<T>,
  what: string = look.toString(),
  limitMs = 25_000,
): Promise<NonNullable<T>> {
  const end = Date.now() + limitMs
  // Often at first, seldom when it takes long: what is waited for needs the processor, too.
  for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 1.5, 100)) {
    const found = await look()
    if (found) return found
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`)
    await sleep(pauseMs)
  }
}
