/** Waits that grow from `firstMs` to `maxMs` by doubling, each taken at random between half and the whole of its step. */
export class Backoff {
  private step = 0
  constructor(
    private readonly firstMs: number,
    private readonly maxMs: number,
  ) {}

  /** The next wait in milliseconds. */
  next(): number {
    const wait = Math.min(this.maxMs, this.firstMs * 2 ** this.step)
    if (wait < this.maxMs) this.step += 1
    return wait * (0.5 + Math.random() / 2)
  }

  /** After a success: begin small again. */
  reset(): void {
    this.step = 0
  }
}
