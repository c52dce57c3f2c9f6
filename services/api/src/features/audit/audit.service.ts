import { requestId } from '@ares/chassis'
import { z } from 'zod'
import type { PrismaTransaction } from '../../database'
import type { Audit } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditStore } from './audit.store'

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
  constructor(private readonly store: AuditStore) {}

  async record(tx: PrismaTransaction, entry: AuditEntry): Promise<void> {
    await this.store.insert([rowOf(entry)], tx)
  }

  /** For what changes nothing that a transaction of ours could hold. All or none. */
  async recordAll(entries: readonly AuditEntry[]): Promise<void> {
    await this.store.insert(entries.map(rowOf))
  }

  /** Newest first. */
  async list(organizationId: string, page: { limit: number; cursor?: string }): Promise<Page<AuditRow>> {
    const before = decodeCursor(page.cursor, z.string().regex(/^\d{1,18}$/))
    const rows = await this.store.list(
      organizationId,
      page.limit + 1,
      before === undefined ? undefined : BigInt(before),
    )
    const { items, nextCursor } = pageFrom(rows, page.limit, (row) => String(row.id))
    return { items: items.map((row) => ({ ...row, id: String(row.id) })), nextCursor }
  }
}

export type AuditRow = Omit<Audit, 'id'> & { readonly id: string }

const rowOf = ({ actor, action, subject, organizationId, detail }: AuditEntry) => ({
  organizationId: organizationId ?? null,
  actorKind: actor.kind,
  actorId: 'id' in actor ? actor.id : null,
  action,
  subjectKind: subject.kind,
  subjectId: subject.id,
  detail: detail ?? {},
  requestId: requestId() ?? null,
  address: ('address' in actor ? actor.address : undefined) ?? null,
})
