import type { PrismaTransaction } from '../../database'
import { Prisma, type PrismaClient, type Revocation, type RevocationKind } from '../../generated/prisma/client'
import type { Step } from './revocations'

/** Plans of revocations in the database. */
export class RevocationStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  /** Nobody changes the device or its certificates until the transaction ends. Undefined: there is no such device. */
  async lockDevice(tx: PrismaTransaction, id: string) {
    await tx.$queryRaw`SELECT 1 FROM devices WHERE id = ${id}::uuid FOR UPDATE`
    return (await tx.device.findUnique({ where: { id }, include: { certificates: true } })) ?? undefined
  }

  /** The last plan of that kind for a device, or for one of its certificates. */
  async latest(tx: PrismaTransaction, deviceId: string, kind: RevocationKind, serial?: string) {
    const where = { deviceId, kind, ...(serial === undefined ? {} : { serials: { has: serial } }) }
    return (await tx.revocation.findFirst({ where, orderBy: { id: 'desc' } })) ?? undefined
  }

  /** @param leaseMs how long it is left to whoever wrote it */
  async add(
    tx: PrismaTransaction,
    plan: Omit<Prisma.RevocationCreateManyInput, 'nextTryAt'>,
    leaseMs: number,
  ): Promise<Revocation> {
    // Every time is the database's: the clocks of two replicas of api may differ by minutes.
    await tx.revocation.createMany({ data: { ...plan, nextTryAt: new Date(0) } })
    return this.write(plan.id, Prisma.sql`next_try_at = ${later(leaseMs)}`, tx)
  }

  async find(where: { id: string; organizationId?: string }): Promise<Revocation | undefined> {
    return (await this.prisma.revocation.findUnique({ where })) ?? undefined
  }

  /** Newest first. */
  list(
    organizationId: string,
    { limit, before, unfinished }: { limit: number; before?: string; unfinished: boolean },
  ): Promise<Revocation[]> {
    return this.prisma.revocation.findMany({
      where: {
        organizationId,
        ...(before === undefined ? {} : { id: { lt: before } }),
        ...(unfinished ? { finishedAt: null } : {}),
      },
      orderBy: { id: 'desc' },
      take: limit,
    })
  }

  /** Takes plans whose time has come, each for `leaseMs`; no two callers get the same one. */
  async claimDue(limit: number, leaseMs: number): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<Array<{ id: string }>>`
      UPDATE revocations SET next_try_at = ${later(leaseMs)}
       WHERE id IN (SELECT id FROM revocations WHERE finished_at IS NULL AND next_try_at <= clock_timestamp()
                     ORDER BY next_try_at LIMIT ${limit}::int FOR UPDATE SKIP LOCKED)
      RETURNING id`
    return rows.map(({ id }) => id)
  }

  /** Holds a plan until the transaction ends, and reads it. */
  async lock(tx: PrismaTransaction, id: string): Promise<Revocation> {
    await tx.$queryRaw`SELECT 1 FROM revocations WHERE id = ${id}::uuid FOR UPDATE`
    return tx.revocation.findUniqueOrThrow({ where: { id } })
  }

  async revoke(
    tx: PrismaTransaction,
    deviceId: string,
    serials: readonly string[],
    reason: string | null,
  ): Promise<void> {
    await tx.certificate.updateMany({
      where: { serial: { in: [...serials] }, deviceId, state: { not: 'revoked' } },
      data: { state: 'revoked', revokedAt: new Date(), revocationReason: reason },
    })
  }

  async disable(tx: PrismaTransaction, deviceId: string): Promise<void> {
    await tx.device.updateMany({ where: { id: deviceId }, data: { state: 'disabled', updatedAt: new Date() } })
  }

  /** The device with its certificates. Twice is once. */
  async remove(tx: PrismaTransaction, deviceId: string): Promise<void> {
    await tx.certificate.deleteMany({ where: { deviceId } })
    await tx.device.deleteMany({ where: { id: deviceId } })
  }

  /** Writes the time of a step, and keeps the plan for another while. */
  done(
    id: string,
    step: Step,
    leaseMs: number,
    { tx, directoryVersion }: { tx?: PrismaTransaction; directoryVersion?: bigint } = {},
  ): Promise<Revocation> {
    const at = Prisma.raw(TIME[step])
    const version =
      directoryVersion === undefined ? Prisma.empty : Prisma.sql`, directory_version = ${directoryVersion}`
    return this.write(
      id,
      Prisma.sql`${at} = coalesce(${at}, clock_timestamp()), next_try_at = ${later(leaseMs)}${version}`,
      tx,
    )
  }

  /** Lets go of a plan. @param failure what did not work; absent: nothing went wrong, there is only more to do later */
  rest(id: string, waitMs: number, failure?: { readonly step: Step; readonly error: string }): Promise<Revocation> {
    return this.write(
      id,
      Prisma.sql`next_try_at = ${later(waitMs)}, failed_step = ${failure?.step ?? null}, last_error = ${failure?.error ?? null},
                 failures = failures + ${failure ? 1 : 0}`,
    )
  }

  finish(id: string): Promise<Revocation> {
    return this.write(id, Prisma.sql`finished_at = clock_timestamp(), failed_step = NULL, last_error = NULL`)
  }

  private async write(id: string, change: Prisma.Sql, tx: PrismaTransaction = this.prisma): Promise<Revocation> {
    const [row] = await tx.$queryRaw<Revocation[]>`
      UPDATE revocations SET ${change} WHERE id = ${id}::uuid RETURNING ${ROW}`
    if (!row) throw new Error(`the plan ${id} of a revocation is gone`)
    return row
  }

  /** How many have not taken effect `graceMs` after they were asked for, and the oldest of them. */
  async overdue(graceMs: number) {
    const where = { auditAt: null, createdAt: { lt: new Date(Date.now() - graceMs) } } as const
    const [count, oldest] = await Promise.all([
      this.prisma.revocation.count({ where }),
      this.prisma.revocation.findFirst({ where, orderBy: { createdAt: 'asc' } }),
    ])
    return { count, oldest: oldest ?? undefined }
  }

  /** Removes plans that were finished so long ago, some at a time. @returns how many */
  prune(keptDays: number, limit: number): Promise<number> {
    return this.prisma.$executeRaw`
      DELETE FROM revocations WHERE id IN (
        SELECT id FROM revocations WHERE finished_at < clock_timestamp() - make_interval(days => ${keptDays}::int)
         LIMIT ${limit}::int FOR UPDATE SKIP LOCKED)`
  }

  /** How many are not finished, the second kick included. */
  unfinished(): Promise<number> {
    return this.prisma.revocation.count({ where: { finishedAt: null } })
  }
}

const later = (ms: number): Prisma.Sql => Prisma.sql`clock_timestamp() + ${ms}::int * interval '1 ms'`

const TIME: Readonly<Record<Step, string>> = {
  vault: 'vault_at',
  database: 'database_at',
  authorizers: 'authorizers_at',
  kick: 'kick_at',
  audit: 'audit_at',
  secondKick: 'second_kick_at',
}

/** A row under the names that Prisma gives it. */
const ROW = Prisma.raw(`
  id, organization_id AS "organizationId", device_id AS "deviceId", kind, serials, reason,
  requested_by AS "requestedBy", created_at AS "createdAt", vault_at AS "vaultAt", database_at AS "databaseAt",
  directory_version AS "directoryVersion", authorizers_at AS "authorizersAt", kick_at AS "kickAt", audit_at AS "auditAt",
  second_kick_at AS "secondKickAt", finished_at AS "finishedAt", failures, failed_step AS "failedStep",
  last_error AS "lastError", next_try_at AS "nextTryAt"`)
