import type { PrismaTransaction } from '../../database'
import type { PrismaClient, User } from '../../generated/prisma/client'
import { newId } from '../../ids'

export interface Person {
  readonly id: string
  readonly email: string
  readonly name: string | null
}

export interface NewPerson {
  readonly email: string
  readonly name?: string
  readonly passwordHash: string
}

const PERSON = { id: true, email: true, name: true } as const

/** People in the database. */
export class UserStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  async isEmpty(prisma: PrismaTransaction = this.prisma): Promise<boolean> {
    return (await prisma.user.count()) === 0
  }

  /** Nobody else makes the first person until the transaction ends. */
  async lockFirst(tx: PrismaTransaction): Promise<void> {
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtext('ares-first-user'))`
  }

  get(id: string): Promise<User> {
    return this.prisma.user.findUniqueOrThrow({ where: { id } })
  }

  withEmail(email: string, prisma: PrismaTransaction = this.prisma): Promise<User | null> {
    return prisma.user.findUnique({ where: { email } })
  }

  create(tx: PrismaTransaction, person: NewPerson): Promise<Person> {
    return tx.user.create({ data: { id: newId(), ...person }, select: PERSON })
  }

  change(
    tx: PrismaTransaction,
    id: string,
    change: { readonly name?: string | null; readonly passwordHash?: string },
  ): Promise<Person> {
    return tx.user.update({ where: { id }, data: change, select: PERSON })
  }
}
