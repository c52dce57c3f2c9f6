import { unary } from '@ares/chassis'
import type { IngestClient } from '@ares/proto/ingest-codec'
import type { ReportLoadResponse } from '@ares/proto/telemetry/v1/telemetry'

export interface LoadParts {
  readonly client: IngestClient
  /** MQTT client id of this listener. */
  readonly listener: string
  /** Messages that may be held. */
  readonly window: number
  /** The session as it is now. */
  readonly session: () => {
    readonly isUp: boolean
    readonly heldMessages: number
    readonly oldestReceivedAt: number | undefined
  }
  /** Messages committed since the start. */
  readonly committed: () => number
  readonly everyMs?: number
}

/**
 * Says every second how this listener keeps up: api slows the devices by it. A report that is lost is not repeated, the
 * next one says more; whether api answers is what the commits themselves find out.
 */
export class LoadReport {
  private timer: NodeJS.Timeout | undefined
  private readonly stopping = new AbortController()
  private reported = { at: 0, committed: 0 }
  private isUnderWay = false
  /** What api said last of all listeners; undefined: nothing yet. */
  standing: ReportLoadResponse | undefined

  constructor(private readonly parts: LoadParts) {}

  /** Whether this listener is the one that never leaves the group, as far as it knows: without word of api it may be. */
  get isKeeper(): boolean {
    return !this.standing?.hasKeeper
  }

  start(): void {
    this.timer = setInterval(() => void this.send(), this.everyMs).unref()
  }

  stop(): void {
    clearInterval(this.timer)
    this.stopping.abort()
  }

  private get everyMs(): number {
    return this.parts.everyMs ?? 1_000
  }

  private async send(): Promise<void> {
    if (this.isUnderWay) return
    this.isUnderWay = true
    const { client, listener, window, session, committed } = this.parts
    const { isUp, heldMessages, oldestReceivedAt } = session()
    const now = { at: performance.now(), committed: committed() }
    const request = {
      listener,
      sessionUp: isUp,
      heldMessages,
      window,
      oldestHeldMs: oldestReceivedAt ? Math.max(0, Date.now() - oldestReceivedAt) : 0,
      committed: now.committed - this.reported.committed,
      intervalMs: this.reported.at === 0 ? 0 : Math.round(now.at - this.reported.at),
    }
    try {
      const limits = { deadlineMs: 2 * this.everyMs, signal: this.stopping.signal }
      this.standing = await unary(client, client.reportLoad, request, limits)
      this.reported = now
    } catch {
      // Not reported: the next report covers this second too.
    } finally {
      this.isUnderWay = false
    }
  }
}
