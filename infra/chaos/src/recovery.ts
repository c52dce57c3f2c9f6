import { TALLY_MS } from './tally'

/** How much happened in spans of `TALLY_MS`. */
export type Moments = ReadonlyArray<{ readonly at: number; readonly count: number }>

/** A second, between two instants in epoch milliseconds. */
export function meanRate(moments: Moments, from: number, to: number): number {
  let count = 0
  for (const moment of moments) if (moment.at >= from && moment.at < to) count += moment.count
  return to > from ? (count * 1_000) / (to - from) : 0
}

/** From `from` to the end of the first two seconds that had the rate; -1 when there were none until `to`. */
export function returnedAfterMs(
  moments: Moments,
  { from, to, rate }: { readonly from: number; readonly to: number; readonly rate: number },
): number {
  for (let at = Math.ceil(from / TALLY_MS) * TALLY_MS; at + SPAN_MS <= to; at += TALLY_MS) {
    if (meanRate(moments, at, at + SPAN_MS) >= rate) return at + SPAN_MS - from
  }
  return -1
}

const SPAN_MS = 2_000
