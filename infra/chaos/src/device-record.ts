import type { SentReport } from '@ares/bench'

/**
 * What a device knows of its reports. It forgets none of them: at the end each is held against the rows.
 *
 *   QUEUED ──take──▶ SENT ──PUBACK──▶ DONE                        (while the broker lives, its word counts)
 *     ▲               │ └──PUBACK──▶ WAITING ──receipt──▶ DONE    (where the broker may die, only the receipt counts)
 *     └──reconnected──┘◀──reconnected, or 5 s─┘
 */
export type Word = 'puback' | 'receipt'

type State = 'queued' | 'sent' | 'waiting' | 'done'

interface Entry {
  readonly report: SentReport
  state: State
  sentAt: number
}

const RESEND_MS = 5_000

export class DeviceRecord {
  private readonly entries = new Map<number, Entry>()
  private queue: Entry[] = []
  /** Everything that is neither queued nor done. */
  private readonly open = new Set<Entry>()

  constructor(
    private readonly until: Word,
    private readonly window: number,
  ) {}

  /** Reports that are not done. */
  get unfinished(): number {
    return this.queue.length + this.open.size
  }

  /** How many more may be made and go out at once. */
  get room(): number {
    return this.window - this.unfinished
  }

  add(report: SentReport): void {
    const entry: Entry = { report, state: 'queued', sentAt: 0 }
    this.entries.set(report.sequence, entry)
    this.queue.push(entry)
  }

  /** Those that may go out now, in order. */
  take(now: number): SentReport[] {
    const taken = this.queue.splice(0, Math.max(0, this.window - this.open.size))
    for (const entry of taken) {
      entry.state = 'sent'
      entry.sentAt = now
      this.open.add(entry)
    }
    return taken.map((entry) => entry.report)
  }

  acknowledged(sequence: number): void {
    const entry = this.entries.get(sequence)
    if (entry?.state !== 'sent') return
    if (this.until === 'puback') this.finish(entry)
    else entry.state = 'waiting'
  }

  receipted(sequence: number): void {
    const entry = this.entries.get(sequence)
    if (this.until === 'receipt' && entry) this.finish(entry)
  }

  /** What the old connection has not brought to an end goes out again, before anything new. */
  reconnected(): void {
    this.sendAgain([...this.open])
  }

  overdue(now: number): void {
    if (this.until === 'puback') return
    this.sendAgain([...this.open].filter((entry) => now - entry.sentAt > RESEND_MS))
  }

  /** Sequence, component, instant, and 1 if it is done: four numbers a report. */
  flat(): number[] {
    return [...this.entries.values()].flatMap(({ report, state }) => [
      report.sequence,
      report.component,
      report.capturedAt,
      state === 'done' ? 1 : 0,
    ])
  }

  private finish(entry: Entry): void {
    if (entry.state === 'queued') this.queue = this.queue.filter((other) => other !== entry)
    entry.state = 'done'
    this.open.delete(entry)
  }

  private sendAgain(entries: readonly Entry[]): void {
    if (entries.length === 0) return
    for (const entry of entries) {
      entry.state = 'queued'
      this.open.delete(entry)
    }
    this.queue = [...entries, ...this.queue]
  }
}
