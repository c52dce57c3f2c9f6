import type { Logger } from '@ares/chassis'
import type { AuditEntry, AuditService } from '../audit/audit.service'

/** An attempt to come in that changed nothing. */
export interface NotedAttempt {
  readonly action: 'device.enrollment_refused' | 'device.enrollment_repeated'
  readonly subject: { readonly kind: 'enrollment_token' | 'device'; readonly id: string }
  /** Whose token it was; absent: nobody's, or nobody looked. */
  readonly organizationId?: string
  readonly reason: string
  readonly address: string
  /** As the device says; of those that are alike, the first one's is kept. */
  readonly serialNumber?: string
}

interface Line extends NotedAttempt {
  firstAt: Date
  lastAt: Date
  count: number
}

const ROWS_AT_ONCE = 100

/**
 * Attempts that are on their way to the audit. Anybody may make one, so they are not a row each: what is alike (what
 * happened, to whom, why, from which address) is one row a minute, with a count. When `mostLines` wait, further ones are
 * told apart by what happened and why alone. So a flood is a bounded number of rows, and every attempt is in one of them.
 *
 * Lines that cannot be written wait for the next minute. What a process has noted in its last minute is lost when it is
 * killed; one that stops writes it down.
 */
export class AttemptJournal {
  private lines = new Map<string, Line>()
  private timer: NodeJS.Timeout | undefined
  private writing: Promise<void> = Promise.resolve()

  constructor(
    private readonly audit: AuditService,
    private readonly logger: Pick<Logger, 'warn'>,
    private readonly mostLines = 1_000,
  ) {}

  start(everyMs = 60_000): void {
    this.timer = setInterval(() => void this.write(), everyMs).unref()
  }

  /** Writes what waits, once. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.write()
  }

  note(attempt: NotedAttempt): void {
    const now = new Date()
    this.add({ ...attempt, firstAt: now, lastAt: now, count: 1 })
  }

  /** Never throws: what could not be written waits. */
  write(): Promise<void> {
    this.writing = this.writing.then(async () => {
      const waiting = [...this.lines.values()]
      this.lines = new Map()
      while (waiting.length > 0) {
        const some = waiting.slice(0, ROWS_AT_ONCE)
        try {
          await this.audit.recordAll(some.map(entryOf))
        } catch (error) {
          this.logger.warn('attempts to enroll are not in the audit yet, trying again', {
            lines: waiting.length,
            error: String(error),
          })
          for (const line of waiting) this.add(line)
          return
        }
        waiting.splice(0, some.length)
      }
    })
    return this.writing
  }

  private add(line: Line): void {
    const known = this.lines.get(keyOf(line))
    const kept = known || this.lines.size < this.mostLines ? line : withoutParticulars(line)
    const alike = known ?? this.lines.get(keyOf(kept))
    if (!alike) {
      this.lines.set(keyOf(kept), { ...kept })
      return
    }
    alike.count += line.count
    // One that could not be written comes back after others that are younger.
    if (line.firstAt < alike.firstAt) alike.firstAt = line.firstAt
    if (line.lastAt > alike.lastAt) alike.lastAt = line.lastAt
  }
}

function entryOf({ action, subject, organizationId, reason, address, serialNumber, ...counted }: Line): AuditEntry {
  const detail = {
    reason,
    address,
    ...(serialNumber === undefined ? {} : { serialNumber }),
    count: counted.count,
    firstAt: counted.firstAt.toISOString(),
    lastAt: counted.lastAt.toISOString(),
  }
  return { actor: { kind: 'system' }, action, subject, organizationId, detail }
}

function withoutParticulars({ action, subject, reason, firstAt, lastAt, count }: Line): Line {
  return { action, subject: { ...subject, id: 'various' }, reason, address: 'various', firstAt, lastAt, count }
}

const keyOf = ({ action, subject, reason, address }: NotedAttempt): string =>
  `${action} ${subject.kind} ${subject.id} ${reason} ${address}`
