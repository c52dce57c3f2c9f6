import { DomainError } from '@ares/chassis'
import type { PrismaTransaction } from '../../database'
import type { PrismaClient } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import { DEFAULT_COST, hashPassword, type PasswordCost, verifyPassword } from './password'

export interface Person {
  readonly id: string
  readonly email: string
  readonly name: string | null
}

/** People. There is no registration: the first one comes from the settings, the others are added by an owner. */
export class UserService {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly audit: AuditService,
    private readonly cost: PasswordCost = DEFAULT_COST,
  ) {}

  /** Makes the first person when there is nobody yet. @returns whether it did */
  async ensureFirst(email: string, password: string): Promise<boolean> {
    if ((await this.prisma.user.count()) > 0) return false
    const passwordHash = await hashPassword(password, this.cost)
    return this.prisma.$transaction(async (tx) => {
      // Two replicas may start at once.
      await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtext('ares-first-user'))`
      if ((await tx.user.count()) > 0) return false
      const { id } = await tx.user.create({ data: { id: newId(), email: email.toLowerCase(), passwordHash } })
      await this.audit.record(tx, { actor: { kind: 'system' }, action: 'user.created', subject: { kind: 'user', id } })
      await recordDirectoryChange(tx, { kind: 'user', id })
      return true
    })
  }

  async get(id: string): Promise<Person> {
    return this.prisma.user.findUniqueOrThrow({ where: { id }, select: { id: true, email: true, name: true } })
  }

  /** @param change a new password needs the present one. Every session of the person ends with it.
   *  @throws DomainError `wrong_password` */
  async changeOwn(
    actor: UserActor,
    change: { name?: string | null; password?: { current: string; next: string } },
  ): Promise<Person> {
    const data: { name?: string | null; passwordHash?: string } = {}
    if (change.name !== undefined) data.name = change.name
    if (change.password) {
      const user = await this.prisma.user.findUniqueOrThrow({ where: { id: actor.id } })
      if (!(await verifyPassword(change.password.current, user.passwordHash))) {
        throw new DomainError('forbidden', 'wrong_password', 'The present password is another one.')
      }
      data.passwordHash = await hashPassword(change.password.next, this.cost)
    }
    return this.prisma.$transaction(async (tx) => {
      const user = await tx.user.update({
        where: { id: actor.id },
        data,
        select: { id: true, email: true, name: true },
      })
      if (data.passwordHash) {
        await tx.refreshToken.updateMany({
          where: { userId: actor.id, revokedAt: null },
          data: { revokedAt: new Date() },
        })
      }
      const action = data.passwordHash ? 'user.password_changed' : 'user.changed'
      await this.audit.record(tx, { actor, action, subject: { kind: 'user', id: actor.id } })
      return user
    })
  }

  hash(password: string): Promise<string> {
    return hashPassword(password, this.cost)
  }

  /** Makes a person inside somebody else's transaction; the caller records the directory change. */
  async create(tx: PrismaTransaction, person: { email: string; name?: string; passwordHash: string }): Promise<Person> {
    return tx.user.create({ data: { id: newId(), ...person }, select: { id: true, email: true, name: true } })
  }
}
