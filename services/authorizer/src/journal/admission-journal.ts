import type { Decision } from '../decision/decision'

export type NotedAction = 'connect' | 'publish' | 'subscribe'

/** What of a decision goes to the audit. */
export type NotedDecision = Pick<Decision, 'result' | 'reason' | 'rule' | 'className' | 'subjectId' | 'serial'>

/** What the client told, or the broker of it. */
export interface NotedQuestion {
  readonly clientId?: string | undefined
  readonly peer?: string | undefined
  readonly zone?: string | undefined
  readonly topic?: string | undefined
}

/** A line of the journal: so many decisions that were alike. */
export interface JournalLine extends NotedDecision, NotedQuestion {
  readonly action: NotedAction
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

  note(action: NotedAction, decision: NotedDecision, question: NotedQuestion): void {
    const key = keyOf(action, decision, question)
    const known = this.lines.get(key)
    if (known) known.count += 1
    else if (this.lines.size < this.options.mostLines) this.begin(key, action, decision, question)
    else this.sumUp(action, decision)
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

  private sumUp(action: NotedAction, { result, reason, className }: NotedDecision): void {
    this.summed += 1
    const alike = { result, reason, className }
    const key = keyOf(action, alike, {})
    const known = this.lines.get(key)
    if (known) known.count += 1
    else this.begin(key, action, alike, {})
  }

  /** A decision may have more than a line needs, such as an acl of a kilobyte: that is not kept. */
  private begin(
    key: string,
    action: NotedAction,
    { result, reason, rule, className, subjectId, serial }: NotedDecision,
    { clientId, peer, zone, topic }: NotedQuestion,
  ): void {
    const atMs = (this.options.now ?? Date.now)()
    const decision = { result, reason, rule, className, subjectId, serial }
    this.lines.set(key, { action, ...decision, clientId, peer, zone, topic, atMs, count: 1 })
  }
}

/** Lengths, because a client may put anything into what it calls itself. A reason has one result, and a serial one subject.
 *  It is made for every connection, so it is as short as can be. */
function keyOf(
  action: NotedAction,
  { reason, className, subjectId, serial }: NotedDecision,
  { clientId = '', peer = '', zone, topic }: NotedQuestion,
): string {
  const whose = serial ?? `of ${subjectId}`
  const who = `${action} ${reason} ${className} ${whose} ${clientId.length} ${clientId} ${peer.length} ${peer} ${zone}`
  return topic === undefined ? who : `${who} ${topic}`
}
