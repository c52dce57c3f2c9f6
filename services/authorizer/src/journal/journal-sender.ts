import { randomUUID } from 'node:crypto'
import { Backoff, type Logger, unary } from '@ares/chassis'
import {
  type Admission,
  AdmissionAction,
  AdmissionResult,
  type AdmissionServiceClient,
  type RecordAdmissionsRequest,
} from '@ares/proto/directory/v1/admission'
import { status } from '@grpc/grpc-js'
import type { AdmissionJournal, JournalLine } from './admission-journal'

/** So many that making the message keeps no question of the broker waiting for more than a millisecond or two. */
const LINES_AT_ONCE = 250
const DEADLINE_MS = 10_000

/**
 * JournalSender brings the journal to api, one batch after the other.
 *
 *   IDLE ──time, lines wait──▶ SENDING ──stored──▶ SENDING (more than a batch waits) | IDLE
 *                                 │
 *                                 └──failed──▶ WAITING (0.5 to 10 s, growing) ──▶ SENDING, the same batch with the same id
 *
 * A batch that api calls wrong is dropped, with a log line: it would be wrong for ever.
 */
export class JournalSender {
  private readonly backoff = new Backoff(500, 10_000)
  private readonly stopping = new AbortController()
  private timer: NodeJS.Timeout | undefined
  private sending: Promise<void> = Promise.resolve()
  private batch: RecordAdmissionsRequest | undefined

  constructor(
    private readonly options: {
      readonly journal: AdmissionJournal
      readonly api: AdmissionServiceClient
      readonly logger: Logger
      /** How long alike decisions are put together; default 1 s. */
      readonly everyMs?: number
      readonly onSent?: (lines: number, result: 'stored' | 'failed' | 'dropped') => void
    },
  ) {}

  start(): void {
    this.later(this.options.everyMs ?? 1_000)
  }

  /** Sends what waits, once more and no longer than `withinMs`. */
  async stop(withinMs = 2_000): Promise<void> {
    clearTimeout(this.timer)
    this.stopping.abort()
    await this.sending
    const endMs = Date.now() + withinMs
    while (this.waiting() && Date.now() < endMs) if (!(await this.send(endMs - Date.now()))) break
    const { journal, logger } = this.options
    const lost = journal.size + (this.batch?.admissions.length ?? 0)
    if (lost > 0) logger.warn('stopped before the audit had all decisions; they are in no row', { lines: lost })
  }

  private later(ms: number): void {
    if (this.stopping.signal.aborted) return
    this.timer = setTimeout(() => {
      this.sending = this.run()
    }, ms).unref()
  }

  private async run(): Promise<void> {
    const { everyMs = 1_000 } = this.options
    while (this.waiting() && !this.stopping.signal.aborted) {
      if (!(await this.send(DEADLINE_MS, this.stopping.signal))) return this.later(this.backoff.next())
      this.backoff.reset()
      if (this.options.journal.size < LINES_AT_ONCE) break
    }
    this.later(everyMs)
  }

  private waiting(): boolean {
    return this.batch !== undefined || this.options.journal.size > 0
  }

  /** @returns whether the next batch may go */
  private async send(deadlineMs: number, signal?: AbortSignal): Promise<boolean> {
    const { journal, api, logger, onSent = () => {} } = this.options
    this.batch ??= { batchId: randomUUID(), admissions: journal.take(LINES_AT_ONCE).map(admissionOf) }
    const { admissions } = this.batch
    try {
      await unary(api, api.recordAdmissions, this.batch, { deadlineMs, ...(signal ? { signal } : {}) })
      onSent(admissions.length, 'stored')
    } catch (error) {
      const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
      if (code !== status.INVALID_ARGUMENT) {
        onSent(admissions.length, 'failed')
        logger.debug('the audit did not take decisions; they are sent again', { error: String(error) })
        return false
      }
      onSent(admissions.length, 'dropped')
      logger.error('api calls decisions wrong that were to be in the audit; they are left out', {
        lines: admissions.length,
        error: String(error),
      })
    }
    this.batch = undefined
    return true
  }
}

const ACTIONS = {
  connect: AdmissionAction.ADMISSION_ACTION_CONNECT,
  publish: AdmissionAction.ADMISSION_ACTION_PUBLISH,
  subscribe: AdmissionAction.ADMISSION_ACTION_SUBSCRIBE,
} as const

const MOST_COUNT = 2 ** 31 - 1

const admissionOf = (line: JournalLine): Admission => ({
  at: new Date(line.atMs),
  count: Math.min(line.count, MOST_COUNT),
  action: ACTIONS[line.action],
  result: line.result === 'allow' ? AdmissionResult.ADMISSION_RESULT_ALLOW : AdmissionResult.ADMISSION_RESULT_DENY,
  reason: line.reason,
  rule: line.rule ?? '',
  className: line.className ?? '',
  subjectId: line.subjectId ?? '',
  clientId: line.clientId ?? '',
  certificateSerial: Buffer.from(line.serial ?? '', 'hex'),
  peerAddress: line.peer ?? '',
  zone: line.zone ?? '',
  topic: line.topic ?? '',
})
