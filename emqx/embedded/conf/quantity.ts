/** The units that EMQX writes in its configuration: durations, sizes, rates, addresses. */

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, B: 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }

/** `"2s"`, `"1h30m"`, `"500ms"` or a plain number of milliseconds, as milliseconds; undefined when it is none of these. */
export function durationMs(value: unknown): number | undefined {
  if (typeof value === 'number') return value
  if (typeof value !== 'string' || !/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(value)) return undefined
  let total = 0
  for (const [, amount, unit] of value.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    total += Number(amount) * (DURATION_UNITS[unit ?? ''] ?? 0)
  }
  return total
}

/** `"1MB"`, `"256KB"` or a plain number, as bytes (1 KB = 1024 bytes, as EMQX counts); undefined when it is neither. */
export function sizeInBytes(value: unknown): number | undefined {
  if (typeof value === 'number') return value
  const parts = typeof value === 'string' ? /^(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|)$/i.exec(value) : null
  return parts ? Number(parts[1]) * (SIZE_UNITS[(parts[2] ?? '').toUpperCase()] ?? 1) : undefined
}

/** `"8000/s"`, `"500/10s"`, `"256KB/s"` or `"infinity"`, as units per second; undefined when it is none of these. */
export function ratePerSecond(value: unknown): number | undefined {
  if (value === 'infinity') return Number.POSITIVE_INFINITY
  const parts = typeof value === 'string' ? /^([^/]+)\/(\d*)(ms|s|m|h|d)$/.exec(value) : null
  const amount = parts ? sizeInBytes(parts[1]) : undefined
  const window = parts ? Number(parts[2] || 1) * (DURATION_UNITS[parts[3] ?? ''] ?? 0) : 0
  return amount === undefined || window <= 0 ? undefined : (amount * 1000) / window
}

export interface Bind {
  readonly host: string
  readonly port: number
}

/** `"0.0.0.0:8883"`, `":8883"` or `8883`; a bare port listens on every address. Undefined when it is none of these. */
export function bindAddress(value: unknown): Bind | undefined {
  if (typeof value === 'number') return Number.isInteger(value) ? { host: '0.0.0.0', port: value } : undefined
  const parts = typeof value === 'string' ? /^(?:\[?([^\]]*)\]?:)?(\d+)$/.exec(value) : null
  return parts ? { host: parts[1] || '0.0.0.0', port: Number(parts[2]) } : undefined
}
