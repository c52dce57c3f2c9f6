/**
 * Makes a value safe for the log: secrets out, size bounded, errors readable. It works on a copy.
 * A secret is known by the name of its field or by its shape, so that a token in the middle of a message is found too.
 */
export function redact(value: unknown): unknown {
  return visit(value, 0, new Set(), { left: MAX_VALUES })
}

/** Takes what looks like a secret out of a text: PEM private keys, Vault tokens, JWTs, passwords in URLs. */
export function redactText(text: string): string {
  const bounded = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${text.length} characters)` : text
  return SHAPES.reduce((rest, [shape, replacement]) => rest.replace(shape, replacement), bounded)
}

/** True for a field whose value is secret whatever it looks like. */
export const isSecretName = (name: string): boolean => SECRET_NAME.test(name.replace(/[-_\s.]/g, ''))

const HIDDEN = '[redacted]'
const MAX_DEPTH = 8
const MAX_VALUES = 2_000
const MAX_ITEMS = 100
const MAX_TEXT = 8_192

// Names are compared without case, dashes and underscores. `tokenPeriod` or `secretIdTtl` are no secrets, so the name
// must end in the secret word; `key` alone is a name for many harmless things.
const SECRET_NAME =
  /(?:password|passwd|passphrase|pwd|token|tokens|secret|secrets|secretid|roleid|authorization|cookie|setcookie|privatekey|secretkey|apikey|keypem|unsealkey|unsealkeys|keysbase64|credential|credentials|databaseurl)$/i

const SHAPES: ReadonlyArray<readonly [RegExp, string]> = [
  // A text that was cut off may have lost the END line: hide the rest then.
  [/-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g, HIDDEN],
  [/\bhv[sbr]\.[\w-]{20,}/g, HIDDEN],
  [/\b[sbr]\.[A-Za-z0-9]{24}\b/g, HIDDEN],
  [/\bares_enroll_[\w-]{8,}/g, HIDDEN],
  [/\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/g, HIDDEN],
  [/\b(Bearer|Basic) [\w.~+/=-]{8,}/gi, `$1 ${HIDDEN}`],
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/@]+@/gi, `$1:${HIDDEN}@`],
]

function visit(value: unknown, depth: number, ancestors: Set<object>, budget: { left: number }): unknown {
  if (typeof value === 'string') return redactText(value)
  if (typeof value === 'bigint' || typeof value === 'symbol' || typeof value === 'function') return String(value)
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString()
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return `[${value.byteLength} bytes]`
  if (ancestors.has(value)) return '[circular]'
  if (depth >= MAX_DEPTH || budget.left <= 0) return '[more]'
  ancestors.add(value)
  try {
    if (Array.isArray(value)) return items(value, depth, ancestors, budget)
    if (value instanceof Map) return fields(Object.fromEntries(value), depth, ancestors, budget)
    if (value instanceof Set) return items([...value], depth, ancestors, budget)
    if (value instanceof Error) return errorFields(value, depth, ancestors, budget)
    return fields(value, depth, ancestors, budget)
  } finally {
    ancestors.delete(value)
  }
}

function items(list: readonly unknown[], depth: number, ancestors: Set<object>, budget: { left: number }): unknown[] {
  const shown = list.slice(0, MAX_ITEMS).map((item) => {
    budget.left -= 1
    return visit(item, depth + 1, ancestors, budget)
  })
  return list.length > MAX_ITEMS ? [...shown, `[${list.length - MAX_ITEMS} more]`] : shown
}

function fields(from: object, depth: number, ancestors: Set<object>, budget: { left: number }): object {
  const result: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(from)) {
    if (budget.left-- <= 0) {
      result['…'] = '[more]'
      break
    }
    result[name] =
      isSecretName(name) && value !== undefined && value !== null ? HIDDEN : visit(value, depth + 1, ancestors, budget)
  }
  return result
}

/** Only what an error says of itself: libraries hang requests, with their headers and bodies, on their errors. */
function errorFields(error: Error, depth: number, ancestors: Set<object>, budget: { left: number }): object {
  const { code, cause } = error as Error & { code?: unknown }
  return {
    name: error.name,
    message: redactText(error.message),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(error.stack ? { stack: redactText(error.stack) } : {}),
    ...(cause === undefined ? {} : { cause: visit(cause, depth + 1, ancestors, budget) }),
    ...(error instanceof AggregateError ? { errors: items(error.errors, depth, ancestors, budget) } : {}),
  }
}
