import type { CheckedSample } from './report.check'

/** One row of the table `telemetry` as a batch wants it, after reports of one component and instant were merged. */
export interface PendingRow {
  readonly componentId: number
  /** Epoch milliseconds. */
  readonly capturedAt: number
  readonly names: string[]
  /** JSON of the values, in the order of the names. */
  readonly values: string[]
  /** Position of the message that brought the row. */
  readonly message: number
  /** Later messages that brought metrics the ones before did not have. */
  more?: Contribution[]
}

export interface Contribution {
  readonly message: number
  readonly names: readonly string[]
}

/** A message that is stored as it came, with the reason why it is no telemetry. */
export interface PendingDeadLetter {
  /** Position in the request of the listener: with the batch's id it names the message. */
  readonly index: number
  readonly deviceId: string
  readonly topic: string
  readonly payload: Buffer
  readonly reason: string
  readonly detail: string
  /** Epoch milliseconds. */
  readonly receivedAt: number
  /** Absent: there is no such device. */
  readonly organizationId?: string | undefined
  /** The report as protobuf, when the payload could be read: what a replay stores. */
  readonly report?: Buffer | undefined
}

export type Fate = 'committed' | 'duplicate' | 'dead_lettered'

/**
 * The rows of a batch. One statement cannot touch a row twice, so reports of one component and instant are merged here
 * first; the first value of a metric stands, here as in the database.
 */
export class PendingRows {
  private readonly byKey = new Map<string, PendingRow>()

  /** @param message position of the message that the sample came in */
  add(message: number, sample: CheckedSample): void {
    const key = `${sample.componentId}:${sample.capturedAt}`
    const row = this.byKey.get(key)
    if (row) merge(row, message, sample)
    else {
      const { componentId, capturedAt } = sample
      this.byKey.set(key, { componentId, capturedAt, names: [...sample.names], values: [...sample.values], message })
    }
  }

  find(componentId: number, capturedAt: number): PendingRow | undefined {
    return this.byKey.get(`${componentId}:${capturedAt}`)
  }

  /** In the order of the key: two transactions that lock the same rows in the same order cannot deadlock. */
  sorted(): PendingRow[] {
    return [...this.byKey.values()].sort((a, b) => a.componentId - b.componentId || a.capturedAt - b.capturedAt)
  }
}

function merge(row: PendingRow, message: number, sample: CheckedSample): void {
  const added: string[] = []
  sample.names.forEach((name, position) => {
    if (row.names.includes(name)) return
    row.names.push(name)
    row.values.push(sample.values[position] ?? 'null')
    added.push(name)
  })
  if (added.length > 0) row.more = [...(row.more ?? []), { message, names: added }]
}
