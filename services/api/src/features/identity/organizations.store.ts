import type { PrismaTransaction } from '../../database'
import type { Organization, Prisma, PrismaClient } from '../../generated/prisma/client'
import type { Role } from '../../generated/prisma/enums'
import { newId } from '../../ids'
import type { Person } from './users.store'

export interface Member {
  readonly userId: string
  readonly email: string
  readonly name: string | null
  readonly role: Role
}

/** Organizations and who is a member of them, in the database. */
export class OrganizationStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  create(tx: PrismaTransaction, name: string): Promise<Organization> {
    return tx.organization.create({ data: { id: newId(), name } })
  }

  get(id: string): Promise<Organization> {
    return this.prisma.organization.findUniqueOrThrow({ where: { id } })
  }

  change(
    tx: PrismaTransaction,
    id: string,
    change: { readonly name?: string; readonly telemetryRetentionDays?: number },
  ): Promise<Organization> {
    return tx.organization.update({ where: { id }, data: change })
  }

  /** Those a person is a member of, oldest first. @param after id of the last one that was seen */
  async listOf(userId: string, limit: number, after?: string): Promise<Array<Organization & { role: Role }>> {
    const rows = await this.prisma.membership.findMany({
      where: { userId, ...(after ? { organizationId: { gt: after } } : {}) },
      include: { organization: true },
      orderBy: { organizationId: 'asc' },
      take: limit,
    })
    return rows.map(({ organization, role }) => ({ ...organization, role }))
  }

  /** What a person is where. */
  rolesOf(userId: string): Promise<Array<{ organizationId: string; role: Role }>> {
    return this.prisma.membership.findMany({ where: { userId }, select: { organizationId: true, role: true } })
  }

  async members(organizationId: string): Promise<Member[]> {
    const rows = await this.prisma.membership.findMany({
      where: { organizationId },
      include: { user: true },
      orderBy: { userId: 'asc' },
    })
    return rows.map(({ user, role }) => memberOf(user, role))
  }

  async addMember(tx: PrismaTransaction, organizationId: string, userId: string, role: Role): Promise<Member> {
    const { user } = await tx.membership.create({ data: { organizationId, userId, role }, include: { user: true } })
    return memberOf(user, role)
  }

  /** What a person is, and nobody changes a member until the transaction ends: the organization's row is locked, so that
   *  two owners cannot remove each other at the same moment. */
  async lockMember(tx: PrismaTransaction, organizationId: string, userId: string): Promise<Role | undefined> {
    await tx.$queryRaw`SELECT 1 FROM organizations WHERE id = ${organizationId}::uuid FOR UPDATE`
    return (await tx.membership.findUnique({ where: key(organizationId, userId) }))?.role
  }

  async hasOtherOwner(tx: PrismaTransaction, organizationId: string, userId: string): Promise<boolean> {
    return (await tx.membership.count({ where: { organizationId, role: 'owner', userId: { not: userId } } })) > 0
  }

  async changeRole(tx: PrismaTransaction, organizationId: string, userId: string, role: Role): Promise<Member> {
    const where = key(organizationId, userId)
    const { user } = await tx.membership.update({ where, data: { role }, include: { user: true } })
    return memberOf(user, role)
  }

  async removeMember(tx: PrismaTransaction, organizationId: string, userId: string): Promise<void> {
    await tx.membership.delete({ where: key(organizationId, userId) })
  }
}

const key = (organizationId: string, userId: string): Prisma.MembershipWhereUniqueInput => ({
  organizationId_userId: { organizationId, userId },
})

const memberOf = ({ id, email, name }: Person, role: Role): Member => ({ userId: id, email, name, role })
