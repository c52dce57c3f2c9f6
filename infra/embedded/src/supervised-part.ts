import { setTimeout as sleep } from 'node:timers/promises'
import { Backoff } from '@ares/chassis'

/** A process that runs. */
export interface Running {
  readonly pid: number
  /** Settles when it serves; rejects when it ends or takes too long before that. */
  readonly ready: Promise<void>
  /** Settles with the reason when it has ended. */
  readonly ended: Promise<string>
  /** Asks it to end, and makes it when it takes too long. */
  stop(): Promise<void>
  kill(signal: NodeJS.Signals): void
}

export type PartEvent =
  | { readonly kind: 'died'; readonly part: string; readonly why: string; readonly lastLines: readonly string[] }
  | { readonly kind: 'back'; readonly part: string; readonly afterMs: number }
  | { readonly kind: 'failed'; readonly part: string; readonly why: string }

export interface PartOptions {
  readonly name: string
  /** Starts the process and returns at once, or when it is ready. */
  launch(): Promise<Running>
  lastLines(): readonly string[]
  onEvent(event: PartEvent): void
  /** Called with the id of each new process, and with undefined when it has ended. */
  onProcess(pid: number | undefined): void
}

/**
 * A part of the stack that is kept alive.
 *
 *   STOPPED ──start──▶ STARTING ──ready──▶ RUNNING ──ends by itself──▶ WAITING ──back-off──▶ STARTING
 *      ▲                                     │                           │
 *      └────────────────stop─────────────────┴───────────────────────────┘
 *
 * `start` rejects when the first attempt fails; from then on failures are events, and attempts go on.
 */
export class SupervisedPart {
  readonly name: string
  private running: Running | undefined
  private launching: Promise<Running> | undefined
  /** Grows with each start and stop: what belongs to an older life must not act any more. */
  private life = 0
  private wanted = false
  private readonly pause = { ended: new AbortController() }

  constructor(private readonly options: PartOptions) {
    this.name = options.name
  }

  /** Process id while there is one. */
  get pid(): number | undefined {
    return this.running?.pid
  }

  async start(): Promise<void> {
    if (this.wanted) return
    this.wanted = true
    const life = ++this.life
    try {
      const running = await this.launch(life)
      await running.ready
      void this.watch(running, life)
    } catch (error) {
      if (life === this.life) await this.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    this.wanted = false
    this.life += 1
    this.pause.ended.abort()
    this.pause.ended = new AbortController()
    await this.launching?.catch(() => {}) // it sees that it is not wanted any more, and stops what it has started
    const { running } = this
    if (!running) return
    await running.stop()
    this.forget(running)
  }

  /** Sends a signal to the process; whatever ends it is an accident to the supervisor, who starts it again. */
  kill(signal: NodeJS.Signals): void {
    this.running?.kill(signal)
  }

  private async launch(life: number): Promise<Running> {
    this.launching = this.launchNow(life)
    try {
      return await this.launching
    } finally {
      this.launching = undefined
    }
  }

  private async launchNow(life: number): Promise<Running> {
    const running = await this.options.launch()
    running.ready.catch(() => {}) // whoever waits for it hears of it
    if (life !== this.life) {
      await running.stop()
      throw new Error(`${this.name} was stopped while it started`)
    }
    this.running = running
    this.options.onProcess(running.pid)
    return running
  }

  private async watch(first: Running, life: number): Promise<void> {
    let running = first
    for (;;) {
      const why = await running.ended
      this.forget(running)
      if (life !== this.life) return
      const diedAt = Date.now()
      this.options.onEvent({ kind: 'died', part: this.name, why, lastLines: this.options.lastLines() })
      const next = await this.bringBack(life)
      if (!next) return
      this.options.onEvent({ kind: 'back', part: this.name, afterMs: Date.now() - diedAt })
      running = next
    }
  }

  private async bringBack(life: number): Promise<Running | undefined> {
    const backoff = new Backoff(100, 10_000)
    while (life === this.life) {
      await sleep(backoff.next(), undefined, { signal: this.pause.ended.signal }).catch(() => {})
      if (life !== this.life) return undefined
      try {
        const running = await this.launch(life)
        await running.ready
        return running
      } catch (error) {
        if (life !== this.life) return undefined
        this.options.onEvent({ kind: 'failed', part: this.name, why: (error as Error).message })
        await this.running?.stop()
        if (this.running) this.forget(this.running)
      }
    }
    return undefined
  }

  private forget(running: Running): void {
    if (this.running !== running) return
    this.running = undefined
    this.options.onProcess(undefined)
  }
}
