import type { PrismaTransaction } from '../../database'
import type { EnrollmentToken, Prisma, PrismaClient } from '../../generated/prisma/client'
import { newId } from '../../ids'

/** Enrollment tokens in the database. */
export class EnrollmentTokenStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  create(tx: PrismaTransaction, token: Omit<Prisma.EnrollmentTokenCreateManyInput, 'id'>): Promise<EnrollmentToken> {
    return tx.enrollmentToken.create({ data: { id: newId(), ...token } })
  }

  /** Newest first. @param before id of the last one that was seen */
  list(organizationId: string, limit: number, before?: string): Promise<EnrollmentToken[]> {
    return this.prisma.enrollmentToken.findMany({
      where: { organizationId, ...(before ? { id: { lt: before } } : {}) },
      orderBy: { id: 'desc' },
      take: limit,
    })
  }

  find(tx: PrismaTransaction, organizationId: string, id: string): Promise<EnrollmentToken | null> {
    return tx.enrollmentToken.findFirst({ where: { id, organizationId } })
  }

  /** @returns whether it was not revoked before */
  async revoke(tx: PrismaTransaction, id: string): Promise<boolean> {
    const { count } = await tx.enrollmentToken.updateMany({
      where: { id, revokedAt: null },
      data: { revokedAt: new Date() },
    })
    return count > 0
  }
}
