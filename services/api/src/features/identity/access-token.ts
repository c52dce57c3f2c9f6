import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { DomainError } from '@ares/chassis'
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from 'jose'
import { LRUCache } from 'lru-cache'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { SessionKeyStore } from './session-keys.store'

/** What an access token says. */
export interface AccessClaims {
  readonly userId: string
  readonly email: string
  readonly sessionId: string
}

export const ACCESS_TOKEN_SECONDS = 15 * 60
const ISSUER = 'ares4'
const ALGORITHM = 'EdDSA'
/** A key signs for a day, then a new one takes over. */
const SIGNING_MS = 24 * 3_600_000

/**
 * Access tokens: JWT, Ed25519. The private key is made here, lives only in this process' memory, and is forgotten with
 * it. The public key is stored under its `kid`, so that other replicas and the authorizer can verify what it signed.
 */
export class AccessTokens {
  private signing: Promise<SigningKey> | undefined
  private readonly publicKeys = new LRUCache<string, PublicKey>({ max: 1_000 })
  /** Made-up kids must not become a query each. */
  private readonly unknownKids = new LRUCache<string, true>({ max: 1_000, ttl: 5_000 })

  constructor(private readonly store: SessionKeyStore) {}

  /** Makes the first key, so that it is in the directory before the first login. */
  async start(): Promise<void> {
    await this.signingKey()
  }

  async sign(claims: AccessClaims): Promise<{ readonly token: string; readonly expiresAt: Date }> {
    const { kid, privateKey } = await this.signingKey()
    const issuedAt = Math.floor(Date.now() / 1_000)
    const expires = issuedAt + ACCESS_TOKEN_SECONDS
    const token = await new SignJWT({ email: claims.email, sid: claims.sessionId })
      .setProtectedHeader({ alg: ALGORITHM, kid, typ: 'at+jwt' })
      .setIssuer(ISSUER)
      .setAudience(ISSUER)
      .setSubject(claims.userId)
      .setIssuedAt(issuedAt)
      .setExpirationTime(expires)
      .sign(privateKey)
    return { token, expiresAt: new Date(expires * 1_000) }
  }

  /** @throws DomainError `token_expired`, `token_invalid` */
  async verify(token: string): Promise<AccessClaims> {
    try {
      const key = await this.publicKey(decodeProtectedHeader(token).kid)
      if (!key) throw invalid()
      const { payload } = await jwtVerify(token, key, {
        algorithms: [ALGORITHM],
        issuer: ISSUER,
        audience: ISSUER,
        typ: 'at+jwt',
      })
      const { sub, email, sid } = payload
      if (typeof sub !== 'string' || typeof email !== 'string' || typeof sid !== 'string') throw invalid()
      return { userId: sub, email, sessionId: sid }
    } catch (error) {
      if (error instanceof errors.JWTExpired) {
        throw new DomainError(
          'unauthenticated',
          'token_expired',
          'The access token has ended. Refresh it: POST /sessions/refresh.',
        )
      }
      if (error instanceof errors.JOSEError || error instanceof TypeError) throw invalid()
      throw error
    }
  }

  private async signingKey(): Promise<SigningKey> {
    const present = await this.signing
    if (present && present.signsUntil > Date.now()) return present
    this.signing = this.newKey()
    this.signing.catch(() => {
      this.signing = undefined
    })
    return this.signing
  }

  private async newKey(): Promise<SigningKey> {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519')
    const kid = randomUUID()
    const signsUntil = Date.now() + SIGNING_MS
    const notAfter = new Date(signsUntil + ACCESS_TOKEN_SECONDS * 1_000)
    await this.store.transaction(async (tx) => {
      await this.store.removeEndedBefore(tx, new Date(Date.now() - SIGNING_MS))
      await this.store.add(tx, { kid, publicKey: publicKey.export({ type: 'spki', format: 'der' }), notAfter })
      await recordDirectoryChange(tx, { kind: 'session_key', id: kid })
    })
    this.publicKeys.set(kid, { key: publicKey, notAfter })
    return { kid, privateKey, signsUntil }
  }

  /** Another replica's key comes from the database, once. */
  private async publicKey(kid: string | undefined): Promise<KeyObject | undefined> {
    if (kid === undefined || !KID.test(kid) || this.unknownKids.has(kid)) return undefined
    const known = this.publicKeys.get(kid) ?? (await this.load(kid))
    if (known && known.notAfter.getTime() > Date.now()) return known.key
    this.unknownKids.set(kid, true)
    return undefined
  }

  private async load(kid: string): Promise<PublicKey | undefined> {
    const row = await this.store.find(kid)
    if (!row) return undefined
    const key = createPublicKey({ key: Buffer.from(row.publicKey), type: 'spki', format: 'der' })
    const found = { key, notAfter: row.notAfter }
    this.publicKeys.set(kid, found)
    return found
  }
}

interface SigningKey {
  readonly kid: string
  readonly privateKey: KeyObject
  readonly signsUntil: number
}

interface PublicKey {
  readonly key: KeyObject
  readonly notAfter: Date
}

const KID = /^[\w-]{1,64}$/

const invalid = () => new DomainError('unauthenticated', 'token_invalid', 'The access token is not one of ours.')
