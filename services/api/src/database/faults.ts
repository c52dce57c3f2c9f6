/** Code (SQLSTATE or the system's, e.g. ECONNREFUSED) and message of whatever `pg` threw. */
export function describeError(error: unknown): { readonly code: string; readonly message: string } {
  if (typeof error !== 'object' || error === null) return { code: '', message: String(error) }
  const code = 'code' in error ? String(error.code) : ''
  const message = 'message' in error ? String(error.message) : String(error)
  return { code, message }
}

/** No connection, one that broke or hangs, a server that starts, stops, or has no room (classes 08, 53, 57). */
export function isDatabaseAway(error: unknown): boolean {
  const { code, message } = describeError(error)
  // Prisma: no connection (P1001, P1002, P1008, P1017), none free in the pool (P2024), none for a transaction (P2028).
  if (/^P(1001|1002|1008|1017|2024|2028)$/.test(code)) return true
  if (/^(08|53|57)/.test(code) || /^E[A-Z]{2}[A-Z]+$/.test(code)) return true
  return code === '' && /timeout|timed out|terminated|not queryable|ended/i.test(message)
}

/** PostgreSQL refuses the values themselves (classes 22, 23, 54): the same statement will never pass. */
export const isDataFault = (error: unknown): boolean => /^(22|23|54)/.test(describeError(error).code)
