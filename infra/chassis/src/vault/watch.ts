import type { CheckResult, Health } from '../health'
import type { Logger } from '../log'
import type { IdentityMetrics } from './identity-metrics'
import { Pause } from './pause'
import type { VaultClient } from './vault-client'
import { VaultError } from './vault-error'

export interface WatchOptions {
  readonly vault: Pick<VaultClient, 'health'>
  readonly health: Health
  readonly metrics: IdentityMetrics
  readonly logger: Logger
  /** Called when Vault can be used again after it could not: whoever waits for it may try now. */
  readonly onReturn: () => void
  /** Milliseconds since 1970; default the clock of this machine. */
  readonly now?: () => number
  /** How often it looks; default 10 s. */
  readonly everyMs?: number
}

/**
 * Looks at Vault every few seconds, so that trouble is seen when it begins and not at the next renewal, which may be hours
 * away. Vault in trouble is no failure of a service that has what it needs: the check `vault` is degraded, and names it:
 * sealed, unreachable, slow, standby or uninitialized, and a clock that differs from Vault's.
 */
export class VaultWatch {
  private readonly pause = new Pause()
  private readonly stopping = new AbortController()
  private readonly running: Promise<void>
  private state: State = 'active'
  private detail = 'not looked at yet'
  private skewMs = 0

  constructor(private readonly options: WatchOptions) {
    options.health.check('vault', () => this.report())
    this.running = this.watch()
  }

  async stop(): Promise<void> {
    this.stopping.abort()
    this.pause.end()
    await this.running
  }

  private async watch(): Promise<void> {
    const { everyMs = LOOK_EVERY_MS } = this.options
    while (!this.stopping.signal.aborted) {
      await this.look()
      await this.pause.start(everyMs, this.stopping.signal)
    }
  }

  private async look(): Promise<void> {
    const { vault, metrics, logger, now = Date.now, onReturn } = this.options
    const before = { state: this.state, skewed: this.isSkewed }
    const beganAt = performance.now()
    try {
      const found = await vault.health({ timeoutMs: LOOK_LIMIT_MS, signal: this.stopping.signal })
      const tookMs = Math.round(performance.now() - beganAt)
      this.state = found.state === 'active' && tookMs > SLOW_MS ? 'slow' : found.state
      this.detail = this.state === 'slow' ? `it took ${tookMs} ms to say that it is well` : `Vault is ${found.state}`
      // Vault tells whole seconds, and its answer was made somewhere within the call.
      if (found.serverTime) this.skewMs = now() - tookMs / 2 - (found.serverTime.getTime() + 500)
    } catch (error) {
      if (this.stopping.signal.aborted) return
      this.state = error instanceof VaultError && error.code === 'timeout' ? 'slow' : 'unreachable'
      this.detail = error instanceof Error ? error.message : String(error)
    }
    for (const state of STATES) metrics.vaultState.set({ state }, state === this.state ? 1 : 0)
    metrics.clockSkew.set(this.skewMs / 1_000)
    if (this.state !== before.state) {
      if (this.state === 'active') logger.info('Vault is well again', { before: before.state })
      else logger.warn('Vault is in trouble; what is in use stays', { state: this.state, detail: this.detail })
    }
    if (this.isSkewed !== before.skewed) {
      if (this.isSkewed) logger.warn('the clock here and the one of Vault differ', { skewMs: Math.round(this.skewMs) })
      else logger.info('the clock here agrees with the one of Vault again')
    }
    if (before.state !== 'active' && this.state === 'active') onReturn()
  }

  private get isSkewed(): boolean {
    return Math.abs(this.skewMs) > SKEW_TOLD_MS
  }

  private report(): CheckResult {
    const parts: string[] = []
    if (this.state !== 'active') parts.push(`${this.state}: ${this.detail}`)
    if (this.isSkewed) {
      const seconds = Math.round(Math.abs(this.skewMs) / 1_000)
      parts.push(
        `clock_skew: the clock here is ${seconds} s ${this.skewMs > 0 ? 'ahead of' : 'behind'} the one of Vault; certificates are made for up to 600 s. Set the clock right (NTP)`,
      )
    }
    return parts.length > 0 ? { ok: true, degraded: true, detail: parts.join('; ') } : { ok: true, detail: this.detail }
  }
}

const STATES = ['active', 'slow', 'sealed', 'standby', 'uninitialized', 'unreachable'] as const
type State = (typeof STATES)[number]

const LOOK_EVERY_MS = 10_000
const LOOK_LIMIT_MS = 3_000
const SLOW_MS = 1_000
/** Half a minute is what certificates allow for by default elsewhere; ours allow for eleven. */
const SKEW_TOLD_MS = 30_000
