import { METRIC_NAMES } from './bench-fleet'

/** What a publisher remembers of a report: `component` and `capturedAt` are the key of its row. */
export interface SentReport {
  readonly sequence: number
  /** Position in the device's list of components. */
  readonly component: number
  /** Epoch milliseconds: also when it was made, so that the row tells how long it took. */
  readonly capturedAt: number
  readonly payload: string
}

/** The reports of one device: its components in turn, no instant of a component twice. */
export class ReportSource {
  private sequence = 0
  private readonly latest: number[]

  constructor(
    private readonly components: readonly string[],
    private readonly metrics: number,
  ) {
    this.latest = components.map(() => 0)
  }

  next(): SentReport {
    this.sequence += 1
    const component = this.sequence % this.components.length
    const capturedAt = Math.max(Date.now(), (this.latest[component] ?? 0) + 1)
    this.latest[component] = capturedAt
    const { sequence } = this
    const timestamp = new Date(capturedAt).toISOString()
    const payload = `{"sequence":${sequence},"component":"${this.components[component]}","timestamp":"${timestamp}","metrics":{${this.values()}}}`
    return { sequence, component, capturedAt, payload }
  }

  /** The first metric is the sequence: so a row says which report it is. */
  private values(): string {
    let text = `"${METRIC_NAMES[0]}":${this.sequence}`
    for (let n = 1; n < this.metrics; n++) text += `,"${METRIC_NAMES[n]}":${((this.sequence * (n + 3)) % 1_000) / 10}`
    return text
  }
}
