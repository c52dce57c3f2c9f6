import type { Logger } from '@ares/chassis'

/**
 * Log lines for refusals, so many of each reason in a while; the others are counted and told in one line at its end. A
 * fleet that is refused at once must not fill the disk, and must not hide the one refusal of another kind.
 */
export class RefusalLog {
  private readonly seen = new Map<string, number>()
  private window: NodeJS.Timeout | undefined

  constructor(
    private readonly logger: Logger,
    private readonly options: { readonly linesPerReason: number; readonly windowMs: number } = {
      linesPerReason: 20,
      windowMs: 10_000,
    },
  ) {}

  /** @param fields asked for only when there is a line */
  refused(message: string, reason: string, fields: () => Readonly<Record<string, unknown>> = () => ({})): void {
    const count = (this.seen.get(reason) ?? 0) + 1
    this.seen.set(reason, count)
    this.window ??= setTimeout(() => this.close(), this.options.windowMs).unref()
    if (count <= this.options.linesPerReason) this.logger.warn(message, { reason, ...fields() })
  }

  /** Tells what was left out and begins anew. */
  close(): void {
    clearTimeout(this.window)
    this.window = undefined
    const leftOut = [...this.seen]
      .map(([reason, count]) => [reason, count - this.options.linesPerReason] as const)
      .filter(([, count]) => count > 0)
    this.seen.clear()
    if (leftOut.length > 0) this.logger.warn('more refusals than are shown', { leftOut: Object.fromEntries(leftOut) })
  }
}
