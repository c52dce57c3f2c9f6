import { plainReport } from '@ares/proto/plain-telemetry'
import { Report } from '@ares/proto/telemetry/v1/telemetry'
import type { PoolClient } from 'pg'
import type { ReplayFate } from './batch-record'
import type { HardwareCache } from './hardware.cache'
import { PendingRows } from './ingest.batch'
import { DataRejected, type IngestStore } from './ingest.store'
import { type CheckableMessage, checkMessage } from './report.check'

/** A dead letter whose report could be read. */
export interface ReplayableLetter {
  readonly id: string
  readonly deviceId: string
  readonly receivedAt: Date
  /** ares.telemetry.v1.Report */
  readonly report: Buffer
}

export type ReplayOutcome =
  | { readonly result: ReplayFate }
  /** Another replay stored it before. */
  | { readonly result: 'replayed_before' }
  /** Its cause is not mended: the letter stays as it is. */
  | { readonly result: 'refused'; readonly reason: string; readonly detail: string }

/** Marks letters as replayed in the transaction that stores them. @returns the ids that were not marked before */
export type MarkLetters = (
  client: PoolClient,
  letters: ReadonlyArray<{ readonly id: string; readonly result: ReplayFate }>,
) => Promise<ReadonlySet<string>>

/**
 * Stores dead letters after their cause is mended, as if they came in now: the same checks against the hardware as it is
 * now, except the budget, for a person asks for it. A report without a timestamp keeps its time of receipt.
 */
export class TelemetryReplay {
  constructor(
    private readonly hardware: Pick<HardwareCache, 'recheck'>,
    private readonly store: Pick<IngestStore, 'replay'>,
    private readonly now: () => number = Date.now,
  ) {}

  /** One transaction; letter by letter if PostgreSQL refuses what one of them holds. @returns what became of each */
  async replay(letters: readonly ReplayableLetter[], mark: MarkLetters): Promise<ReplayOutcome[]> {
    const now = this.now()
    const devices = await this.hardware.recheck(new Set(letters.map(({ deviceId }) => deviceId)))
    const outcomes: ReplayOutcome[] = []
    const rows = new PendingRows()
    const accepted: Array<{ readonly position: number; readonly letter: ReplayableLetter }> = []
    letters.forEach((letter, position) => {
      const check = checkMessage(messageOf(letter), devices.get(letter.deviceId), now)
      if (check.kind === 'refused') {
        outcomes[position] = { result: 'refused', reason: check.reason, detail: check.detail }
        return
      }
      for (const sample of check.samples) rows.add(accepted.length, sample)
      accepted.push({ position, letter })
    })
    if (accepted.length === 0) return outcomes
    try {
      const fates = await this.store.replay({
        rows,
        letters: accepted.map(({ letter }) => ({ deviceId: letter.deviceId, receivedAt: letter.receivedAt.getTime() })),
        async mark(client, results) {
          const wanted = accepted.map(({ letter }, i) => ({ id: letter.id, result: results[i] ?? 'duplicate' }))
          const marked = await mark(client, wanted)
          return new Set(accepted.flatMap(({ letter }, i) => (marked.has(letter.id) ? [i] : [])))
        },
      })
      accepted.forEach(({ position }, i) => {
        outcomes[position] = { result: fates[i] ?? 'replayed_before' }
      })
      return outcomes
    } catch (error) {
      if (!(error instanceof DataRejected)) throw error
      if (letters.length === 1) return [{ result: 'refused', reason: 'rejected_by_store', detail: error.message }]
      const alone: ReplayOutcome[] = []
      for (const letter of letters) alone.push(...(await this.replay([letter], mark)))
      return alone
    }
  }
}

const messageOf = ({ deviceId, receivedAt, report }: ReplayableLetter): CheckableMessage => ({
  deviceId,
  receivedAt: receivedAt.getTime(),
  content: { $case: 'report', value: plainReport(Report.decode(report)) },
})
