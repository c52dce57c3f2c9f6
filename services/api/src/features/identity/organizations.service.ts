import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isUniqueViolation, type PrismaTransaction } from '../../database'
import type { Organization } from '../../generated/prisma/client'
import type { Role } from '../../generated/prisma/enums'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { Member, OrganizationStore } from './organizations.store'
import type { UserService } from './users.service'

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
    private readonly store: OrganizationStore,
    private readonly users: UserService,
    private readonly audit: AuditService,
  ) {}

  /** Its maker is its first owner. */
  async create(actor: UserActor, name: string): Promise<Organization & { role: Role }> {
    return this.store.transaction(async (tx) => {
      const organization = await this.store.create(tx, name)
      await this.store.addMember(tx, organization.id, actor.id, 'owner')
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
    const rows = await this.store.listOf(userId, page.limit + 1, after)
    return pageFrom(rows, page.limit, (row) => row.id)
  }

  get(id: string): Promise<Organization> {
    return this.store.get(id)
  }

  async change(
    actor: UserActor,
    id: string,
    change: { name?: string; telemetryRetentionDays?: number },
  ): Promise<Organization> {
    return this.store.transaction(async (tx) => {
      const organization = await this.store.change(tx, id, change)
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

  members(organizationId: string): Promise<Member[]> {
    return this.store.members(organizationId)
  }

  /** Adds a person by e-mail. @throws DomainError `user_unknown` when there is no such account and no password to make
   *  one, `already_member` */
  async addMember(actor: UserActor, organizationId: string, member: NewMember): Promise<Member> {
    const passwordHash = member.password === undefined ? undefined : await this.users.hash(member.password)
    try {
      return await this.store.transaction(async (tx) => {
        const person =
          (await this.users.withEmail(tx, member.email)) ?? (await this.newUser(tx, { ...member, passwordHash }))
        const added = await this.store.addMember(tx, organizationId, person.id, member.role)
        await this.recordMember(tx, actor, 'member.added', organizationId, person.id, member.role)
        return added
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
    return this.store.transaction(async (tx) => {
      const present = await this.lockMember(tx, organizationId, userId)
      if (present === 'owner' && role !== 'owner') await this.requireOtherOwner(tx, organizationId, userId)
      const changed = await this.store.changeRole(tx, organizationId, userId, role)
      await this.recordMember(tx, actor, 'member.role_changed', organizationId, userId, role)
      return changed
    })
  }

  /** @throws DomainError `member_not_found`, `last_owner` */
  async removeMember(actor: UserActor, organizationId: string, userId: string): Promise<void> {
    await this.store.transaction(async (tx) => {
      const present = await this.lockMember(tx, organizationId, userId)
      if (present === 'owner') await this.requireOtherOwner(tx, organizationId, userId)
      await this.store.removeMember(tx, organizationId, userId)
      await this.recordMember(tx, actor, 'member.removed', organizationId, userId, present)
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

  private async lockMember(tx: PrismaTransaction, organizationId: string, userId: string): Promise<Role> {
    const role = await this.store.lockMember(tx, organizationId, userId)
    if (!role) throw new DomainError('not_found', 'member_not_found', 'This person is no member of the organization.')
    return role
  }

  private async requireOtherOwner(tx: PrismaTransaction, organizationId: string, userId: string): Promise<void> {
    if (await this.store.hasOtherOwner(tx, organizationId, userId)) return
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
