/**
 * How long MQTT.js waits before it tries again. Between a broker's start and the first SUBSCRIBE messages have no taker,
 * so the first try comes at once; a broker that stays away, or that ends every session after a moment, is asked less and
 * less often. Each wait is taken at random between half and all of its step, so that instances do not come together.
 */
export class ReconnectPace {
  private stepMs: number
  private sessionSince: number | undefined

  constructor(private readonly limits: PaceLimits = { firstMs: 100, maxMs: 10_000, stableAfterMs: 5_000 }) {
    this.stepMs = limits.firstMs
  }

  /** A session began. */
  began(now = Date.now()): void {
    this.sessionSince = now
  }

  /** A session, or a try to get one, ended. @returns milliseconds to wait */
  next(now = Date.now()): number {
    const lasted = this.sessionSince === undefined ? 0 : now - this.sessionSince
    this.sessionSince = undefined
    if (lasted >= this.limits.stableAfterMs) this.stepMs = this.limits.firstMs
    const wait = this.stepMs * (0.5 + Math.random() / 2)
    this.stepMs = Math.min(this.stepMs * 2, this.limits.maxMs)
    return Math.ceil(wait)
  }
}

export interface PaceLimits {
  readonly firstMs: number
  readonly maxMs: number
  /** A session that lasted this long was a good one: begin with the first wait again. */
  readonly stableAfterMs: number
}
