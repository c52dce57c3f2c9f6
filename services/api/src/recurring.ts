/** Work that is done every so often, one run at a time. A run that fails is told of; the next one tries again. */
export class Recurring {
  private timer: NodeJS.Timeout | undefined
  private running: Promise<void> | undefined

  constructor(
    private readonly work: () => Promise<unknown>,
    private readonly onFailed: (error: unknown) => void,
  ) {}

  /** The first run is after this time; see `run` for one now. */
  start(everyMs: number): void {
    this.timer = setInterval(() => void this.run(), everyMs).unref()
  }

  /** Ends when the run that is under way has ended. */
  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.running
  }

  /** Works now, or waits for the run that is under way. Never throws. */
  run(): Promise<void> {
    this.running ??= this.workOnce().finally(() => {
      this.running = undefined
    })
    return this.running
  }

  private async workOnce(): Promise<void> {
    try {
      await this.work()
    } catch (error) {
      this.onFailed(error)
    }
  }
}
