/**
 * What went wrong, as a caller can act on it:
 *
 * | code | meaning |
 * |---|---|
 * | unreachable | nobody answered, or the TLS handshake failed |
 * | timeout | no whole answer in time; **the call may still have been carried out** |
 * | aborted | the caller's signal |
 * | sealed, standby | the server is there and cannot work yet |
 * | denied | the token lives, its policy does not allow this |
 * | token_gone | the token is expired, revoked or unknown: log in again |
 * | rejected | Vault says what it does not like about the request |
 */
export type VaultErrorCode =
  | 'unreachable'
  | 'timeout'
  | 'aborted'
  | 'sealed'
  | 'standby'
  | 'denied'
  | 'token_gone'
  | 'rejected'
  | 'not_found'
  | 'rate_limited'
  | 'server'

/** A call to Vault that did not succeed. It carries neither the token nor the body of the request. */
export class VaultError extends Error {
  override readonly name = 'VaultError'

  constructor(
    readonly code: VaultErrorCode,
    message: string,
    /** HTTP status, when there was an answer. */
    readonly status?: number,
    /** A later try of the same call may succeed without anybody doing anything. */
    readonly temporary: boolean = TEMPORARY.has(code),
  ) {
    super(message)
  }
}

const TEMPORARY: ReadonlySet<VaultErrorCode> = new Set(['unreachable', 'timeout', 'sealed', 'standby', 'rate_limited'])

/** Makes the error of an answer that is not a success. @param errors the texts of Vault's answer */
export function errorOfAnswer(call: string, status: number, errors: readonly string[]): VaultError {
  const text = errors.join('; ').replace(/\s+/g, ' ').trim()
  const code = codeOfAnswer(status, text)
  const temporary = TEMPORARY.has(code) || status === 502 || status === 503
  return new VaultError(code, `Vault ${call}: ${status}${text ? ` ${text}` : ''}${hint(code)}`, status, temporary)
}

// Measured on OpenBao 2.7.2: a live token whose policy says no gets "1 error occurred: * permission denied", a dead token
// a bare "permission denied". Vault adds "invalid token" for the dead one.
function codeOfAnswer(status: number, text: string): VaultErrorCode {
  if (status === 403) return text.startsWith('1 error occurred') ? 'denied' : 'token_gone'
  if (status === 404) return 'not_found'
  if (status === 429) return 'rate_limited'
  if (status === 503 && text.includes('sealed')) return 'sealed'
  if (status === 500 && text.includes('not active')) return 'standby'
  if (status >= 300 && status < 400) return 'standby' // a standby sends clients to the active node; we do not follow with a token
  if (status >= 400 && status < 500) return 'rejected'
  return 'server'
}

const hint = (code: VaultErrorCode): string =>
  code === 'denied'
    ? ' (the policy of this role does not allow it)'
    : code === 'token_gone'
      ? ' (the token is gone)'
      : ''
