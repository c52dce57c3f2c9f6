import type { ClassName } from '../policy/policy'

/** What was decided, as it goes to the audit. */
export interface Noted {
  readonly action: 'connect' | 'publish' | 'subscribe'
  readonly allowed: boolean
  readonly reason: string
  readonly rule?: string | undefined
  readonly className?: ClassName | undefined
  readonly subjectId?: string | undefined
  /** Lower-case hex. */
  readonly serial?: string | undefined
  readonly clientId?: string | undefined
  readonly peer?: string | undefined
  readonly zone?: string | undefined
  readonly topic?: string | undefined
}

/** A line of the journal: so many decisions that were alike. */
export interface JournalLine extends Noted {
  /** The first of them, epoch milliseconds. */
  readonly atMs: number
  count: number
}

/**
 * Admissions that are on their way to the audit: every connection and every refusal. To note one costs a microsecond and
 * never waits; what is alike is one line with a count. When `mostLines` wait, because api is away or slow, further ones
 * are told apart only by action, answer, reason and class: a flood of strangers cannot fill the memory, and nothing is
 * left out of the count.
 */
export class AdmissionJournal {
  private lines = new Map<string, JournalLine>()
  private summed = 0

  constructor(
    private readonly options: { readonly mostLines: number; readonly now?: () => number } = { mostLines: 20_000 },
  ) {}

  /** Lines that wait. */
  get size(): number {
    return this.lines.size
  }

  /** Decisions that were noted without their particulars, since the start. */
  get withoutParticulars(): number {
    return this.summed
  }

  note(noted: Noted): void {
    const key = keyOf(noted)
    const known = this.lines.get(key)
    if (known) known.count += 1
    else if (this.lines.size < this.options.mostLines) this.begin(key, noted)
    else this.sumUp(noted)
  }

  /** Takes the oldest lines out. */
  take(most: number): JournalLine[] {
    const taken: JournalLine[] = []
    for (const [key, line] of this.lines) {
      if (taken.length >= most) break
      taken.push(line)
      this.lines.delete(key)
    }
    return taken
  }

  private sumUp({ action, allowed, reason, className }: Noted): void {
    this.summed += 1
    const key = keyOf({ action, allowed, reason, className })
    const known = this.lines.get(key)
    if (known) known.count += 1
    else this.begin(key, { action, allowed, reason, className })
  }

  private begin(key: string, noted: Noted): void {
    const { action, allowed, reason, rule, className, subjectId, serial, clientId, peer, zone, topic } = noted
    const atMs = (this.options.now ?? Date.now)()
    // What comes may have more than a line needs, such as an acl of a kilobyte.
    this.lines.set(key, {
      ...{ action, allowed, reason, rule, className, subjectId, serial, clientId, peer, zone, topic },
      atMs,
      count: 1,
    })
  }
}

/** Lengths, because a client may put anything into what it calls itself. */
const keyOf = ({
  action,
  allowed,
  reason,
  className,
  subjectId,
  serial,
  clientId = '',
  peer = '',
  zone,
  topic,
}: Noted) =>
  `${action} ${allowed} ${reason} ${className} ${subjectId} ${serial} ${clientId.length} ${clientId} ${peer.length} ${peer} ${zone} ${topic}`
