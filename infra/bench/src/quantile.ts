/** A quantile of measured times, to a tenth of a millisecond. @param share 0.5 is the median */
export function quantile(times: readonly number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b)
  const at = Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))
  return Math.round((sorted[at] ?? Number.NaN) * 10) / 10
}
