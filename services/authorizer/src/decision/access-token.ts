import { verify } from 'node:crypto'
import type { Directory } from '../replica/directory'

export type TokenFinding =
  | { readonly ok: true; readonly userId: string; readonly expiresAtMs: number }
  | { readonly ok: false; readonly reason: 'token_unreadable' | 'token_expired' }

/** Longer than any token of api. */
const LONGEST = 4_096

/**
 * Verifies an access token of api: a JWT, EdDSA, signed by a session key of the directory, of the type, issuer and audience
 * that api gives to access tokens and to no other. `sub` is the person's id, `exp` is demanded. A header that asks for another algorithm, or brings a key of its own, is not looked at further.
 */
export function verifyAccessToken(token: string, directory: Directory, nowMs: number): TokenFinding {
  const [header, payload, signature, ...rest] = token.length <= LONGEST ? token.split('.') : []
  if (!header || !payload || !signature || rest.length > 0) return UNREADABLE
  const { alg, kid, typ, crit } = jsonOf(header)
  if (alg !== 'EdDSA' || typ !== 'at+jwt' || typeof kid !== 'string' || crit !== undefined) return UNREADABLE
  const key = directory.sessionKey(kid)
  if (!key) return UNREADABLE
  if (!BASE64URL.test(signature)) return UNREADABLE
  const signed = Buffer.from(`${header}.${payload}`, 'latin1')
  if (!verify(null, signed, key.key, Buffer.from(signature, 'base64url'))) return UNREADABLE
  const { sub, iss, aud, exp, nbf } = jsonOf(payload)
  if (iss !== ARES || aud !== ARES) return UNREADABLE
  if (typeof sub !== 'string' || typeof exp !== 'number' || !Number.isFinite(exp)) return UNREADABLE
  if (nbf !== undefined && !(typeof nbf === 'number' && nbf * 1_000 <= nowMs + CLOCK_SKEW_MS)) return UNREADABLE
  // No token lives longer than its key.
  const expiresAtMs = Math.min(exp * 1_000, key.notAfterMs)
  return expiresAtMs > nowMs ? { ok: true, userId: sub, expiresAtMs } : { ok: false, reason: 'token_expired' }
}

const UNREADABLE = { ok: false, reason: 'token_unreadable' } as const
const ARES = 'ares4'
const CLOCK_SKEW_MS = 60_000
const BASE64URL = /^[A-Za-z0-9_-]+$/

function jsonOf(part: string): Record<string, unknown> {
  if (!BASE64URL.test(part)) return {}
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {} // a person's bytes: what is not JSON is no token
  }
}
