import { requestId } from '@ares/chassis'
import { z } from 'zod'
import type { PrismaTransaction } from '../../database'
import type { Prisma, PrismaClient } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'

/** Who did it. */
export type Actor =
  | UserActor
  | Pick<UserActor, 'kind' | 'id' | 'address'>
  | { readonly kind: 'device'; readonly id: string; readonly address?: string }
  | { readonly kind: 'service'; readonly id: string }
  | { readonly kind: 'system' }

export interface AuditEntry {
  readonly actor: Actor
  /** `<noun>.<what happened>`, e.g. `device.created`. */
  readonly action: string
  readonly subject: { readonly kind: string; readonly id: string }
  /** Whose owners may read it; absent: nobody's. */
  readonly organizationId?: string
  /** Plain values, never a secret. */
  readonly detail?: Readonly<Record<string, string | number | boolean | null>>
}

/** Who did what, when. An entry is written in the transaction that does it: neither is there without the other. */
export class AuditService {
  constructor(private readonly prisma: PrismaClient) {}

  async record(tx: PrismaTransaction, entry: AuditEntry): Promise<void> {
    const { actor } = entry
    await tx.audit.create({
      data: {
        organizationId: entry.organizationId ?? null,
        actorKind: actor.kind,
        actorId: 'id' in actor ? actor.id : null,
        action: entry.action,
        subjectKind: entry.subject.kind,
        subjectId: entry.subject.id,
        detail: entry.detail ?? {},
        requestId: requestId() ?? null,
        address: ('address' in actor ? actor.address : undefined) ?? null,
      },
    })
  }

  /** Newest first. */
  async list(organizationId: string, page: { limit: number; cursor?: string }): Promise<Page<AuditRow>> {
    const before = decodeCursor(page.cursor, z.string().regex(/^\d{1,18}$/))
    const rows = await this.prisma.audit.findMany({
      where: { organizationId, ...(before === undefined ? {} : { id: { lt: BigInt(before) } }) },
      orderBy: { id: 'desc' },
      take: page.limit + 1,
    })
    const { items, nextCursor } = pageFrom(rows, page.limit, (row) => String(row.id))
    return { items: items.map((row) => ({ ...row, id: String(row.id) })), nextCursor }
  }
}

export type AuditRow = Omit<Prisma.AuditGetPayload<object>, 'id'> & { readonly id: string }
