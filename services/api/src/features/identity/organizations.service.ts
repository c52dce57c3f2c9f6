import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isUniqueViolation, type PrismaTransaction } from '../../database'
import type { Organization, PrismaClient } from '../../generated/prisma/client'
import type { Role } from '../../generated/prisma/enums'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { UserService } from './users.service'

export interface Member {
  readonly userId: string
  readonly email: string
  readonly name: string | null
  readonly role: Role
}

export interface NewMember {
  readonly email: string
  readonly role: Role
  /** For a person who has no account yet. */
  readonly name?: string
  readonly password?: string
}

/** Organizations own everything; their members are people with a role. An organization always has an owner. */
export class OrganizationService {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly users: UserService,
    private readonly audit: AuditService,
  ) {}

  /** Its maker is its first owner. */
  async create(actor: UserActor, name: string): Promise<Organization & { role: Role }> {
    return this.prisma.$transaction(async (tx) => {
      const organization = await tx.organization.create({ data: { id: newId(), name } })
      await tx.membership.create({ data: { organizationId: organization.id, userId: actor.id, role: 'owner' } })
      await this.audit.record(tx, {
        actor,
        action: 'organization.created',
        subject: { kind: 'organization', id: organization.id },
        organizationId: organization.id,
        detail: { name },
      })
      await recordDirectoryChange(tx, { kind: 'user', id: actor.id })
      return { ...organization, role: 'owner' as const }
    })
  }

  /** Those a person is a member of, oldest first. */
  async listOf(userId: string, page: { limit: number; cursor?: string }): Promise<Page<Organization & { role: Role }>> {
    const after = decodeCursor(page.cursor, z.uuid())
    const rows = await this.prisma.membership.findMany({
      where: { userId, ...(after ? { organizationId: { gt: after } } : {}) },
      include: { organization: true },
      orderBy: { organizationId: 'asc' },
      take: page.limit + 1,
    })
    const { items, nextCursor } = pageFrom(rows, page.limit, (row) => row.organizationId)
    return { items: items.map(({ organization, role }) => ({ ...organization, role })), nextCursor }
  }

  async get(id: string): Promise<Organization> {
    return this.prisma.organization.findUniqueOrThrow({ where: { id } })
  }

  async change(
    actor: UserActor,
    id: string,
    change: { name?: string; telemetryRetentionDays?: number },
  ): Promise<Organization> {
    return this.prisma.$transaction(async (tx) => {
      const organization = await tx.organization.update({ where: { id }, data: change })
      await this.audit.record(tx, {
        actor,
        action: 'organization.changed',
        subject: { kind: 'organization', id },
        organizationId: id,
        detail: change,
      })
      return organization
    })
  }

  async members(organizationId: string): Promise<Member[]> {
    const rows = await this.prisma.membership.findMany({
      where: { organizationId },
      include: { user: true },
      orderBy: { userId: 'asc' },
    })
    return rows.map(({ user, role }) => ({ userId: user.id, email: user.email, name: user.name, role }))
  }

  /** Adds a person by e-mail. @throws DomainError `user_unknown` when there is no such account and no password to make
   *  one, `already_member` */
  async addMember(actor: UserActor, organizationId: string, member: NewMember): Promise<Member> {
    const passwordHash = member.password === undefined ? undefined : await this.users.hash(member.password)
    try {
      return await this.prisma.$transaction(async (tx) => {
        const user =
          (await tx.user.findUnique({ where: { email: member.email } })) ??
          (await this.newUser(tx, { ...member, passwordHash }))
        await tx.membership.create({ data: { organizationId, userId: user.id, role: member.role } })
        await this.recordMember(tx, actor, 'member.added', organizationId, user.id, member.role)
        return { userId: user.id, email: user.email, name: user.name, role: member.role }
      })
    } catch (error) {
      if (!isUniqueViolation(error)) throw error
      throw new DomainError(
        'conflict',
        'already_member',
        `${member.email} is a member already. Change the role instead.`,
      )
    }
  }

  /** @throws DomainError `member_not_found`, `last_owner` */
  async changeRole(actor: UserActor, organizationId: string, userId: string, role: Role): Promise<Member> {
    return this.prisma.$transaction(async (tx) => {
      const present = await this.lockMember(tx, organizationId, userId)
      if (present.role === 'owner' && role !== 'owner') await this.requireOtherOwner(tx, organizationId, userId)
      const { user } = await tx.membership.update({
        where: { organizationId_userId: { organizationId, userId } },
        data: { role },
        include: { user: true },
      })
      await this.recordMember(tx, actor, 'member.role_changed', organizationId, userId, role)
      return { userId, email: user.email, name: user.name, role }
    })
  }

  /** @throws DomainError `member_not_found`, `last_owner` */
  async removeMember(actor: UserActor, organizationId: string, userId: string): Promise<void> {
    await this.prisma.$transaction(async (tx) => {
      const present = await this.lockMember(tx, organizationId, userId)
      if (present.role === 'owner') await this.requireOtherOwner(tx, organizationId, userId)
      await tx.membership.delete({ where: { organizationId_userId: { organizationId, userId } } })
      await this.recordMember(tx, actor, 'member.removed', organizationId, userId, present.role)
    })
  }

  private async newUser(tx: PrismaTransaction, person: { email: string; name?: string; passwordHash?: string }) {
    const { email, name, passwordHash } = person
    if (passwordHash === undefined) {
      throw new DomainError(
        'invalid',
        'user_unknown',
        `Nobody has the e-mail ${email}. Give a \`password\` to make an account.`,
      )
    }
    return this.users.create(tx, { email, name, passwordHash })
  }

  /** The organization's row is locked, so that two owners cannot remove each other at the same moment. */
  private async lockMember(tx: PrismaTransaction, organizationId: string, userId: string): Promise<{ role: Role }> {
    await tx.$queryRaw`SELECT 1 FROM organizations WHERE id = ${organizationId}::uuid FOR UPDATE`
    const member = await tx.membership.findUnique({ where: { organizationId_userId: { organizationId, userId } } })
    if (!member) throw new DomainError('not_found', 'member_not_found', 'This person is no member of the organization.')
    return member
  }

  private async requireOtherOwner(tx: PrismaTransaction, organizationId: string, userId: string): Promise<void> {
    const others = await tx.membership.count({ where: { organizationId, role: 'owner', userId: { not: userId } } })
    if (others > 0) return
    throw new DomainError(
      'conflict',
      'last_owner',
      'The organization would be without an owner. Make somebody else owner first.',
    )
  }

  private async recordMember(
    tx: PrismaTransaction,
    actor: UserActor,
    action: string,
    organizationId: string,
    userId: string,
    role: Role,
  ): Promise<void> {
    await this.audit.record(tx, {
      actor,
      action,
      subject: { kind: 'user', id: userId },
      organizationId,
      detail: { role },
    })
    await recordDirectoryChange(tx, { kind: 'user', id: userId })
  }
}
