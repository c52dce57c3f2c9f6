import { createHash, randomBytes } from 'node:crypto'
import { DomainError } from '@ares/chassis'
import type { PrismaTransaction } from '../../database'
import type { User } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import type { AccessTokens } from './access-token'
import { LoginLimit } from './login-limit'
import { DEFAULT_COST, hashPassword, type PasswordCost, verifyPassword } from './password'
import type { SessionStore, TokenHash } from './sessions.store'
import type { UserStore } from './users.store'

export interface Session {
  readonly accessToken: string
  readonly expiresAt: Date
  readonly refreshToken: string
  readonly user: { readonly id: string; readonly email: string; readonly name: string | null }
}

const REFRESH_TOKEN_MS = 30 * 24 * 3_600_000

/**
 * Sessions: a short access token, and a refresh token that is good for one use.
 *
 *   LOGIN ──▶ token 1 ──refresh──▶ token 2 ──refresh──▶ ...      (one family)
 *                │
 *                └──used again──▶ the whole family is revoked: one of the two users is a thief, and nobody knows which
 */
export class SessionService {
  private readonly limit = new LoginLimit()
  private readonly decoy: Promise<string>

  constructor(
    private readonly store: SessionStore,
    private readonly users: UserStore,
    private readonly tokens: AccessTokens,
    private readonly audit: AuditService,
    cost: PasswordCost = DEFAULT_COST,
  ) {
    this.decoy = hashPassword(randomBytes(16).toString('hex'), cost)
  }

  /** @throws DomainError `login_failed`: the same for an unknown e-mail and a wrong password, after the same work.
   *  `too_many_attempts` */
  async login(email: string, password: string, address: string): Promise<Session> {
    this.limit.begin(email, address)
    const user = await this.users.withEmail(email)
    const right = await verifyPassword(password, user?.passwordHash ?? (await this.decoy))
    if (!user?.active || !right) {
      throw new DomainError(
        'unauthenticated',
        'login_failed',
        'E-mail and password do not fit, or the account is switched off.',
      )
    }
    this.limit.succeeded(email, address)
    const familyId = newId()
    const refreshToken = await this.store.transaction(async (tx) => {
      await this.store.removeEnded(tx, user.id)
      await this.audit.record(tx, {
        actor: { kind: 'user', id: user.id, email, sessionId: familyId, address },
        action: 'session.created',
        subject: { kind: 'user', id: user.id },
      })
      return this.issueRefreshToken(tx, user.id, familyId)
    })
    return this.session(user, familyId, refreshToken)
  }

  /** Exchanges a refresh token for a new pair. @throws DomainError `refresh_token_invalid`, `refresh_token_reused` */
  async refresh(refreshToken: string, address: string): Promise<Session> {
    const tokenHash = hashOf(refreshToken)
    const outcome = await this.store.transaction(async (tx) => {
      const token = await this.store.use(tx, tokenHash)
      if (token) {
        const next = await this.issueRefreshToken(tx, token.userId, token.familyId)
        return { kind: 'rotated', user: token.user, familyId: token.familyId, next } as const
      }
      return { kind: await this.revokeIfReused(tx, tokenHash, address) } as const
    })
    if (outcome.kind === 'rotated') return this.session(outcome.user, outcome.familyId, outcome.next)
    throw outcome.kind === 'reused'
      ? new DomainError(
          'unauthenticated',
          'refresh_token_reused',
          'This refresh token was used before. Somebody may have copied it: the session is ended, log in again.',
        )
      : new DomainError(
          'unauthenticated',
          'refresh_token_invalid',
          'The refresh token is unknown or has ended. Log in again.',
        )
  }

  /** Ends the session of this access token: it cannot be refreshed any more. The access token itself lives on for its
   *  15 minutes at most. */
  async end(actor: UserActor): Promise<void> {
    await this.store.transaction(async (tx) => {
      await this.store.revokeFamily(tx, actor.sessionId)
      await this.audit.record(tx, { actor, action: 'session.ended', subject: { kind: 'user', id: actor.id } })
    })
  }

  private async issueRefreshToken(tx: PrismaTransaction, userId: string, familyId: string): Promise<string> {
    const token = randomBytes(32).toString('base64url')
    const expiresAt = new Date(Date.now() + REFRESH_TOKEN_MS)
    await this.store.add(tx, { userId, familyId, tokenHash: hashOf(token), expiresAt })
    return token
  }

  private async revokeIfReused(tx: PrismaTransaction, tokenHash: TokenHash, address: string) {
    const token = await this.store.find(tx, tokenHash)
    if (!token?.usedAt) return 'invalid' as const
    if (token.revokedAt === null) {
      await this.store.revokeFamily(tx, token.familyId)
      const { id, email } = token.user
      await this.audit.record(tx, {
        actor: { kind: 'user', id, email, sessionId: token.familyId, address },
        action: 'session.refresh_token_reused',
        subject: { kind: 'user', id },
      })
    }
    return 'reused' as const
  }

  private async session(user: User, sessionId: string, refreshToken: string): Promise<Session> {
    const { token, expiresAt } = await this.tokens.sign({ userId: user.id, email: user.email, sessionId })
    return { accessToken: token, expiresAt, refreshToken, user: { id: user.id, email: user.email, name: user.name } }
  }
}

const hashOf = (token: string): TokenHash => Uint8Array.from(createHash('sha256').update(token).digest())
