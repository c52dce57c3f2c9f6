import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '@ares/chassis'
import type { RevocationService } from './revocations.service'

const AT_ONCE = 8

/**
 * Goes on with revocations that are not finished: those whose second kick is due, those that failed, and those that a
 * process left when it was killed. Runs in every replica of api; the database gives a plan to one of them.
 */
export class RevocationWorker {
  private readonly ending = new AbortController()
  private running: Promise<void> = Promise.resolve()

  constructor(
    private readonly service: Pick<RevocationService, 'continueDue'>,
    private readonly options: {
      readonly logger: Pick<Logger, 'warn'>
      /** Between two looks; default 500 ms. */
      readonly everyMs?: number
    },
  ) {}

  start(): void {
    this.running = this.run()
  }

  /** Waits for what is being done. */
  async stop(): Promise<void> {
    this.ending.abort()
    await this.running
  }

  private async run(): Promise<void> {
    const { signal } = this.ending
    const { everyMs = 500, logger } = this.options
    while (!signal.aborted) {
      let more = false
      try {
        more = (await this.service.continueDue(AT_ONCE)) === AT_ONCE
      } catch (error) {
        logger.warn('revocations cannot be gone on with now', { error: String(error) })
      }
      if (!more) await sleep(everyMs, undefined, { signal }).catch(() => {})
    }
  }
}
