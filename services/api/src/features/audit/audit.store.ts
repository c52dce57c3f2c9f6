import type { PrismaTransaction } from '../../database'
import type { Audit, Prisma, PrismaClient } from '../../generated/prisma/client'

/** The audit in the database. Rows are added and read, never changed. */
export class AuditStore {
  constructor(private readonly prisma: PrismaClient) {}

  /** All or none, in one statement. */
  async insert(rows: readonly Prisma.AuditCreateManyInput[], prisma: PrismaTransaction = this.prisma): Promise<void> {
    await prisma.audit.createMany({ data: [...rows] })
  }

  /** Newest first. @param before id of the last one that was seen */
  list(organizationId: string, limit: number, before?: bigint): Promise<Audit[]> {
    return this.prisma.audit.findMany({
      where: { organizationId, ...(before === undefined ? {} : { id: { lt: before } }) },
      orderBy: { id: 'desc' },
      take: limit,
    })
  }
}
