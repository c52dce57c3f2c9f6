import type { Logger } from '@ares/chassis'
import { Counter, Gauge, type Registry } from 'prom-client'
import { initialState, type LawState, type Limits, nextState, type TotalLoad } from './control-law'
import type { DevicesBucket } from './devices-bucket'
import type { GovernorMemory } from './governor.memory'

export interface GovernorSettings {
  /** Messages a second that are always let in. */
  readonly floor: number
  /** Messages a second at most; undefined: what the broker is configured with. */
  readonly maximum?: number | undefined
}

export interface GovernorParts {
  readonly bucket: DevicesBucket
  readonly board: { total(): TotalLoad }
  readonly leadership: { readonly mine: boolean }
  readonly memory: Pick<GovernorMemory, 'recall' | 'keep'>
  readonly logger: Pick<Logger, 'info' | 'warn'>
  readonly metrics: Registry
  readonly tickMs?: number
}

/** Instead of no limit: a bucket must have one. */
const UNLIMITED = 100_000
const PATIENCE_MS = 1_500
/** Ticks after which the broker is asked what it has: it may have been restarted, or configured by somebody. */
const LOOK_AGAIN_TICKS = 10
/** Ticks after the start in which silence of the listeners means nothing: they look for us. */
const GRACE_TICKS = 10
/** A change of less is not worth a call. */
const WORTH_IT = 0.02
const RATES_KNOWN = 30

/**
 * Sets the devices' bucket once a second by the control law. A rate at the broker that is neither ours nor the configured
 * one is somebody's wish, and becomes the maximum; a restart of the broker or of api in the middle changes nothing.
 */
export class Governor {
  private timer: NodeJS.Timeout | undefined
  private ticking: Promise<void> = Promise.resolve()
  private isBusy = false
  private ticks = 0
  private graceTicks = GRACE_TICKS
  private state: LawState | undefined
  /** What the broker is configured with. */
  private configured = 0
  /** What it has now, as far as we know. */
  private current = 0
  /** What we set lately. */
  private ours: readonly number[] = []
  private problem: string | undefined
  private readonly gauges: ReturnType<typeof createMetrics>

  constructor(
    private readonly settings: GovernorSettings,
    private readonly parts: GovernorParts,
  ) {
    this.gauges = createMetrics(parts.metrics)
  }

  start(): void {
    this.timer = setInterval(() => {
      if (!this.isBusy) this.ticking = this.tick()
    }, this.parts.tickMs ?? 1_000).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.ticking
  }

  /** Messages a second that it wants now; undefined: this replica does not govern. */
  get rate(): number | undefined {
    return this.state && Math.round(this.state.rate)
  }

  /** One second of work. Never throws. */
  async tick(): Promise<void> {
    this.isBusy = true
    try {
      await this.govern()
      if (this.problem) this.parts.logger.info('the rate of the devices can be set again')
      this.problem = undefined
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      if (problem !== this.problem) this.parts.logger.warn('the rate of the devices cannot be set', { reason: problem })
      this.problem = problem
    } finally {
      this.isBusy = false
    }
  }

  private async govern(): Promise<void> {
    const { board, leadership } = this.parts
    this.gauges.leader.set(leadership.mine ? 1 : 0)
    if (!leadership.mine) {
      this.state = undefined
      return
    }
    const load = board.total()
    if (load.listeners > 0) this.graceTicks = 0
    else if (this.graceTicks > 0) this.graceTicks -= 1
    // The law goes on while the broker cannot be reached: what is wanted is known when it can.
    const before = this.state
    if (this.state && this.graceTicks === 0) this.state = nextState(this.state, load, this.limits)
    if (this.state) this.show(this.state, before, load)
    this.ticks += 1
    if (!this.state || this.ticks % LOOK_AGAIN_TICKS === 0) await this.look()
    await this.write()
  }

  /** Asks the broker what it has. */
  private async look(): Promise<void> {
    const found = Math.max(1, Math.round(Math.min(await this.parts.bucket.read(), UNLIMITED)))
    if (!this.state) await this.begin(found)
    else if (found !== this.configured && !this.ours.includes(found)) await this.adopt(found)
    else this.current = found // ours, or the broker was restarted
  }

  /** A rate below what is remembered is one that api lowered before it was restarted. */
  private async begin(found: number): Promise<void> {
    const { memory, logger } = this.parts
    const remembered = await memory.recall()
    this.configured = Math.max(remembered ?? 0, found)
    if (this.configured !== remembered) await memory.keep(this.configured)
    this.current = found
    this.state = initialState(found, this.limits)
    logger.info('governing the rate of the devices', { ...this.limits, rate: found })
  }

  private async adopt(found: number): Promise<void> {
    const { memory, logger } = this.parts
    logger.info('somebody has set the rate of the devices: it is the maximum from now on', { rate: found })
    this.configured = found
    this.current = found
    this.state = initialState(found, this.limits)
    await memory.keep(found)
  }

  private async write(): Promise<void> {
    const { rate, current } = this
    if (rate === undefined) return
    const isEdge = rate === this.limits.maximum || rate === this.limits.floor
    if (rate === current || (!isEdge && Math.abs(rate - current) < current * WORTH_IT)) return
    // Noted before: a call that timed out may still have been carried out.
    this.ours = [rate, ...this.ours].slice(0, RATES_KNOWN)
    await this.parts.bucket.write(rate)
    this.current = rate
    this.gauges.changes.inc()
  }

  private show(state: LawState, before: LawState | undefined, load: TotalLoad): void {
    this.gauges.rate.set(state.rate)
    this.gauges.commitRate.set(state.commitRate)
    this.gauges.listeners.set(load.listeners)
    for (const phase of PHASES) this.gauges.phase.set({ phase }, state.phase === phase ? 1 : 0)
    if (!before || before.phase === state.phase) return
    const level = state.phase === 'nobody' ? 'warn' : 'info'
    this.parts.logger[level](TOLD[state.phase], {
      rate: Math.round(state.rate),
      commitRate: Math.round(state.commitRate),
      ...load,
    })
  }

  private get limits(): Limits {
    const maximum = this.settings.maximum ?? this.configured
    return { maximum, floor: Math.min(this.settings.floor, maximum), patienceMs: PATIENCE_MS }
  }
}

const PHASES = ['full', 'lowering', 'rising', 'nobody'] as const

const TOLD = {
  full: 'devices may send at the full rate again',
  lowering: 'devices are slowed down: the store does not keep up',
  rising: 'devices may send more again',
  nobody: 'no listener is there: devices are slowed down to the floor',
} as const

function createMetrics(registry: Registry) {
  const registers = [registry]
  return {
    leader: new Gauge({ name: 'ares_governor_leader', help: '1: this replica of api governs', registers }),
    rate: new Gauge({
      name: 'ares_governor_rate',
      help: 'Messages a second that the broker takes from all devices',
      registers,
    }),
    commitRate: new Gauge({
      name: 'ares_governor_commit_rate',
      help: 'Messages a second that are committed, smoothed',
      registers,
    }),
    listeners: new Gauge({
      name: 'ares_governor_listeners',
      help: 'Listeners that report and have a session',
      registers,
    }),
    phase: new Gauge({
      name: 'ares_governor_phase',
      help: '1 for the phase it is in',
      labelNames: ['phase'],
      registers,
    }),
    changes: new Counter({ name: 'ares_governor_changes_total', help: 'Rates that were set at the broker', registers }),
  }
}
