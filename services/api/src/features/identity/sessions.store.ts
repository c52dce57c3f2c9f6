import type { PrismaTransaction } from '../../database'
import type { Prisma, PrismaClient } from '../../generated/prisma/client'
import { newId } from '../../ids'

/** SHA-256 of a refresh token: the token itself is not kept. */
export type TokenHash = Uint8Array<ArrayBuffer>

const WITH_USER = { user: true } satisfies Prisma.RefreshTokenInclude

export type StoredRefreshToken = Prisma.RefreshTokenGetPayload<{ include: typeof WITH_USER }>

/** Refresh tokens in the database. */
export class SessionStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  async add(
    tx: PrismaTransaction,
    token: {
      readonly userId: string
      readonly familyId: string
      readonly tokenHash: TokenHash
      readonly expiresAt: Date
    },
  ): Promise<void> {
    await tx.refreshToken.create({ data: { id: newId(), ...token } })
  }

  /** Of several who come with one token, one gets it; the others get undefined, as for one that is not good. */
  async use(tx: PrismaTransaction, tokenHash: TokenHash): Promise<StoredRefreshToken | undefined> {
    const [used] = await tx.refreshToken.updateManyAndReturn({
      where: { tokenHash, usedAt: null, revokedAt: null, expiresAt: { gt: new Date() }, user: { active: true } },
      data: { usedAt: new Date() },
      include: WITH_USER,
    })
    return used
  }

  find(tx: PrismaTransaction, tokenHash: TokenHash): Promise<StoredRefreshToken | null> {
    return tx.refreshToken.findUnique({ where: { tokenHash }, include: WITH_USER })
  }

  async revokeFamily(tx: PrismaTransaction, familyId: string): Promise<void> {
    await tx.refreshToken.updateMany({ where: { familyId, revokedAt: null }, data: { revokedAt: new Date() } })
  }

  async revokeAllOf(tx: PrismaTransaction, userId: string): Promise<void> {
    await tx.refreshToken.updateMany({ where: { userId, revokedAt: null }, data: { revokedAt: new Date() } })
  }

  async removeEnded(tx: PrismaTransaction, userId: string): Promise<void> {
    await tx.refreshToken.deleteMany({ where: { userId, expiresAt: { lt: new Date() } } })
  }
}
