import type { PlainMetrics } from '@ares/proto/plain-telemetry'
import type { CheckedSample } from './report.check'

/** One row of the table `telemetry` as a batch wants it, after reports of one component and instant were merged. */
export interface PendingRow {
  readonly componentId: number
  /** Epoch milliseconds. */
  readonly capturedAt: number
  readonly metrics: PlainMetrics
  /** Position of the message that brought the row. */
  readonly message: number
  /** Later messages that brought metrics the ones before did not have. */
  readonly more?: readonly Contribution[]
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
  private readonly rows: PendingRow[] = []

  /** @param message position of the message that the sample came in; later ones come later */
  add(message: number, { componentId, capturedAt, metrics }: CheckedSample): void {
    this.rows.push({ componentId, capturedAt, metrics, message })
  }

  /** In the order of the key: two transactions that lock the same rows in the same order cannot deadlock. */
  merged(): PendingRow[] {
    // Equal keys keep their order (sort is stable), so the first of them is the one that came first.
    const sorted = this.rows.toSorted((a, b) => a.componentId - b.componentId || a.capturedAt - b.capturedAt)
    const merged: PendingRow[] = []
    for (const row of sorted) {
      const last = merged.at(-1)
      if (last?.componentId === row.componentId && last.capturedAt === row.capturedAt)
        merged.splice(-1, 1, mergeOf(last, row))
      else merged.push(row)
    }
    return merged
  }
}

function mergeOf(first: PendingRow, { message, metrics }: PendingRow): PendingRow {
  const names = Object.keys(metrics).filter((name) => !Object.hasOwn(first.metrics, name))
  if (names.length === 0) return first
  return { ...first, metrics: { ...metrics, ...first.metrics }, more: [...(first.more ?? []), { message, names }] }
}
