import type { Logger } from '@ares/chassis'
import { Recurring } from '../../recurring'
import type { RevocationStore } from './revocations.store'

const KEPT_DAYS = 90
const ROWS_AT_ONCE = 1_000

/** Finished plans go 90 days after their end; what they did stays in the audit. One that is not finished stays. */
export class RevocationUpkeep {
  private readonly recurring = new Recurring(
    () => this.run(),
    (error) => this.logger.warn('old revocations were not removed, trying again', { error: String(error) }),
  )

  constructor(
    private readonly store: Pick<RevocationStore, 'prune'>,
    private readonly logger: Pick<Logger, 'info' | 'warn'>,
  ) {}

  start(everyMs = 3_600_000): void {
    this.recurring.start(everyMs)
  }

  stop(): Promise<void> {
    return this.recurring.stop()
  }

  async run(): Promise<void> {
    let total = 0
    let removed: number
    do {
      removed = await this.store.prune(KEPT_DAYS, ROWS_AT_ONCE)
      total += removed
    } while (removed === ROWS_AT_ONCE)
    if (total > 0) this.logger.info('removed revocations past their retention', { revocations: total })
  }
}
