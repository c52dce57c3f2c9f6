import type { ReportLoadRequest, ReportLoadResponse } from '@ares/proto/telemetry/v1/telemetry'
import type { TotalLoad } from './control-law'

/** A listener that has not reported for so long is gone. */
const FRESH_MS = 3_000
/** The place of the keeper is given on only when nobody can still hold it. */
const KEEPER_LEASE_MS = 60_000

/** What the listeners said last, from this replica of api and from the others. */
export class LoadBoard {
  private readonly reports = new Map<string, Noted>()
  private keeper: { listener: string; until: number } | undefined

  constructor(
    /** Tells the other replicas. */
    private readonly publish: (report: ReportLoadRequest) => void = () => {},
    private readonly now: () => number = Date.now,
  ) {}

  /** A report that a listener made here. */
  report(report: ReportLoadRequest): ReportLoadResponse {
    this.note(report)
    this.publish(report)
    return { listeners: this.total().listeners, hasKeeper: this.keeperOf(report) !== report.listener }
  }

  /** A report that another replica heard. */
  note(report: ReportLoadRequest): void {
    this.reports.set(report.listener, { report, at: this.now() })
    for (const [listener, { at }] of this.reports) {
      if (this.now() - at > KEEPER_LEASE_MS) this.reports.delete(listener)
    }
  }

  /** What those that are there say together. */
  total(): TotalLoad {
    const oldest = this.now() - FRESH_MS
    const up = [...this.reports.values()].filter(({ report, at }) => at >= oldest && report.sessionUp)
    const sum = (of: (report: ReportLoadRequest) => number) => up.reduce((total, { report }) => total + of(report), 0)
    return {
      listeners: up.length,
      committedPerSecond: sum(({ committed, intervalMs }) => (intervalMs > 0 ? (committed * 1_000) / intervalMs : 0)),
      heldMessages: sum(({ heldMessages }) => heldMessages),
      window: sum(({ window }) => window),
      oldestHeldMs: Math.max(0, ...up.map(({ report }) => report.oldestHeldMs)),
    }
  }

  /** Whoever had it goes on having it while he reports, and as long again as he may believe it without us. */
  private keeperOf({ listener, sessionUp }: ReportLoadRequest): string | undefined {
    const now = this.now()
    const isFree = !this.keeper || this.keeper.until < now
    if (sessionUp && (isFree || this.keeper?.listener === listener)) {
      this.keeper = { listener, until: now + KEEPER_LEASE_MS }
    }
    return this.keeper?.listener
  }
}

interface Noted {
  readonly report: ReportLoadRequest
  readonly at: number
}
