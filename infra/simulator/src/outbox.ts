/**
 * Outbox: the reports of a device that Ares has not confirmed yet.
 *
 *   QUEUED ──take──▶ SENDING ──broker's PUBACK──▶ WAITING ──receipt or error──▶ gone
 *     ▲                 │                           │
 *     └──send failed────┘◀──reconnected, or no receipt in time──┘
 *
 * The broker's PUBACK says only that the broker has it, in memory. The receipt says that it is committed, so only the
 * receipt ends a report. Sent twice is harmless. At most `window` reports are SENDING or WAITING; when more than
 * `capacity` are kept, the oldest QUEUED one is given up, and counted.
 */
export interface Report {
  readonly sequence: number
  readonly [field: string]: unknown
}

interface Entry {
  readonly report: Report
  state: 'queued' | 'sending' | 'waiting'
  /** When a WAITING report is sent again. */
  resendAt: number
  resends: number
}

export interface OutboxOptions {
  readonly capacity?: number
  readonly window?: number
  /** First wait for a receipt; it doubles with each resend up to `maxResendMs`. */
  readonly resendMs?: number
  readonly maxResendMs?: number
}

export class Outbox {
  private readonly entries = new Map<number, Entry>()
  private inFlight = 0
  private readonly capacity: number
  private readonly window: number
  private readonly resendMs: number
  private readonly maxResendMs: number
  /** Reports given up because the outbox was full. */
  dropped = 0

  constructor(options: OutboxOptions = {}) {
    this.capacity = options.capacity ?? 10_000
    this.window = options.window ?? 32
    this.resendMs = options.resendMs ?? 5_000
    this.maxResendMs = options.maxResendMs ?? 60_000
  }

  /** Reports that are not confirmed. */
  get size(): number {
    return this.entries.size
  }

  add(report: Report): void {
    if (this.entries.size >= this.capacity) this.giveUpOldest()
    this.entries.set(report.sequence, { report, state: 'queued', resendAt: 0, resends: 0 })
  }

  /** The oldest report that may be sent now, if the window has room. The caller sends it, then calls `sent` or `failed`. */
  take(): Report | undefined {
    if (this.inFlight >= this.window) return undefined
    for (const entry of this.entries.values()) {
      if (entry.state !== 'queued') continue
      this.move(entry, 'sending')
      return entry.report
    }
    return undefined
  }

  /** The broker has it. */
  sent(sequence: number, now: number): void {
    const entry = this.entries.get(sequence)
    if (entry?.state !== 'sending') return
    this.move(entry, 'waiting')
    entry.resendAt = now + Math.min(this.maxResendMs, this.resendMs * 2 ** entry.resends)
  }

  failed(sequence: number): void {
    const entry = this.entries.get(sequence)
    if (entry?.state === 'sending') this.move(entry, 'queued')
  }

  /** Ares has it, or has refused it for good. @returns false for a report that is not here (a second receipt) */
  confirmed(sequence: number): boolean {
    const entry = this.entries.get(sequence)
    if (!entry) return false
    this.move(entry, 'queued')
    return this.entries.delete(sequence)
  }

  /** After a reconnect: receipts are QoS 0 and may have been lost with the connection. */
  reconnected(): void {
    for (const entry of this.entries.values()) if (entry.state === 'waiting') this.sendAgain(entry)
  }

  /** Puts back what has waited too long for its receipt. @returns how many */
  overdue(now: number): number {
    let count = 0
    for (const entry of this.entries.values()) {
      if (entry.state !== 'waiting' || entry.resendAt > now) continue
      this.sendAgain(entry)
      count += 1
    }
    return count
  }

  private sendAgain(entry: Entry): void {
    entry.resends += 1
    this.move(entry, 'queued')
  }

  private move(entry: Entry, state: Entry['state']): void {
    if (entry.state === 'queued' && state !== 'queued') this.inFlight += 1
    if (entry.state !== 'queued' && state === 'queued') this.inFlight -= 1
    entry.state = state
  }

  private giveUpOldest(): void {
    for (const [sequence, entry] of this.entries) {
      if (entry.state !== 'queued') continue
      this.entries.delete(sequence)
      this.dropped += 1
      return
    }
  }
}
