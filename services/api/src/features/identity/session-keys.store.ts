import type { PrismaTransaction } from '../../database'
import type { PrismaClient, SessionKey } from '../../generated/prisma/client'

/** The public keys of access tokens in the database. */
export class SessionKeyStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  async add(
    tx: PrismaTransaction,
    { kid, publicKey, notAfter }: { readonly kid: string; readonly publicKey: Buffer; readonly notAfter: Date },
  ): Promise<void> {
    await tx.sessionKey.create({ data: { kid, publicKey: Uint8Array.from(publicKey), notAfter } })
  }

  find(kid: string): Promise<SessionKey | null> {
    return this.prisma.sessionKey.findUnique({ where: { kid } })
  }

  async removeEndedBefore(tx: PrismaTransaction, time: Date): Promise<void> {
    await tx.sessionKey.deleteMany({ where: { notAfter: { lt: time } } })
  }
}
