import type { Fate, PendingRow } from './ingest.batch'

/** What a batch says of one message, for the record. */
export interface RecordedMessage {
  readonly deviceId: string
  /** Epoch milliseconds. */
  readonly receivedAt: number
  /** Of a report that has one. */
  readonly sequence?: bigint | undefined
}

/** The columns of one row of telemetry_count_batches, as JSON; null where there is nothing. */
export interface BatchRecord {
  readonly counts: string
  readonly sequences: string | null
  readonly dirty: string | null
}

const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000

/**
 * All that is worked on later, in one row a batch: counts per device and hour, sequence numbers as ranges, and the
 * minutes whose roll-ups are out of date. It costs the transaction one insert, whatever the batch holds.
 */
export function recordOf(
  messages: readonly RecordedMessage[],
  fates: readonly Fate[],
  rows: readonly PendingRow[],
): BatchRecord {
  // By hour and then by device: a key of both would be a new text for each message.
  const byHour = new Map<number, Map<string, DeviceHour>>()
  messages.forEach(({ deviceId, receivedAt, sequence }, position) => {
    const hour = Math.floor(receivedAt / HOUR_MS) * HOUR_MS
    let ofHour = byHour.get(hour)
    if (!ofHour) {
      ofHour = new Map()
      byHour.set(hour, ofHour)
    }
    let entry = ofHour.get(deviceId)
    if (!entry) {
      entry = { deviceId, hour, received: 0, committed: 0, duplicate: 0, dead_lettered: 0, sequences: [] }
      ofHour.set(deviceId, entry)
    }
    entry.received += 1
    count(entry, fates[position])
    const number = Number(sequence)
    if (Number.isSafeInteger(number)) entry.sequences.push(number)
  })
  const hours = [...byHour.values()].flatMap((ofHour) => [...ofHour.values()])
  const counts = hours.map((entry) => [
    entry.deviceId,
    entry.hour,
    entry.received,
    entry.committed,
    entry.duplicate,
    entry.dead_lettered,
  ])
  const sequences = hours
    .filter((entry) => entry.sequences.length > 0)
    .map((entry) => [entry.deviceId, entry.hour, rangesOf(entry.sequences)])
  return {
    counts: JSON.stringify(counts),
    sequences: sequences.length > 0 ? JSON.stringify(sequences) : null,
    dirty: dirtyOf(rows),
  }
}

/** Not by the name of the fate: that takes several times as long, and there are ten thousand a second. */
function count(entry: DeviceHour, fate: Fate | undefined): void {
  if (fate === 'committed') entry.committed += 1
  else if (fate === 'dead_lettered') entry.dead_lettered += 1
  else entry.duplicate += 1
}

export type ReplayFate = Exclude<Fate, 'dead_lettered'>

/**
 * The record of a replay: in the hour of its receipt a letter counts as committed or duplicate now, and as dead no more.
 * Received is what it was, so the hour closes as before. Letters without a fate change nothing.
 */
export function correctionOf(
  letters: readonly RecordedMessage[],
  fates: ReadonlyArray<ReplayFate | undefined>,
  rows: readonly PendingRow[],
): BatchRecord {
  const counts: unknown[] = []
  letters.forEach(({ deviceId, receivedAt }, position) => {
    const fate = fates[position]
    if (!fate) return
    const hour = Math.floor(receivedAt / HOUR_MS) * HOUR_MS
    counts.push([deviceId, hour, 0, fate === 'committed' ? 1 : 0, fate === 'duplicate' ? 1 : 0, -1])
  })
  return { counts: JSON.stringify(counts), sequences: null, dirty: dirtyOf(rows) }
}

/** First and last of each run of numbers, one after the other: 1 2 3 7 -> 1 3 7 7. */
export function rangesOf(numbers: readonly number[]): number[] {
  const ranges: number[] = []
  for (const next of [...numbers].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last !== undefined && next <= last + 1) ranges[ranges.length - 1] = next
    else ranges.push(next, next)
  }
  return ranges
}

interface DeviceHour {
  readonly deviceId: string
  readonly hour: number
  received: number
  committed: number
  duplicate: number
  dead_lettered: number
  readonly sequences: number[]
}

const dirtyOf = (rows: readonly PendingRow[]): string | null =>
  rows.length > 0 ? JSON.stringify(minutesOf(rows)) : null

/** @param rows in the order of component and instant */
function minutesOf(rows: readonly PendingRow[]): Array<[number, number[]]> {
  const dirty: Array<[number, number[]]> = []
  for (const { componentId, capturedAt } of rows) {
    const minute = Math.floor(capturedAt / MINUTE_MS)
    const last = dirty.at(-1)
    if (last?.[0] !== componentId) dirty.push([componentId, [minute]])
    else if (last[1].at(-1) !== minute) last[1].push(minute)
  }
  return dirty
}
