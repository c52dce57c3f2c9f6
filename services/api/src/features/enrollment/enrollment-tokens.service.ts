import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import type { EnrollmentToken } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditService } from '../audit/audit.service'
import type { HardwareService } from '../hardware/hardware.service'
import type { NewEnrollmentToken } from './enrollment.schema'
import { hashOf, newEnrollmentSecret } from './enrollment-token'
import type { EnrollmentTokenStore } from './enrollment-tokens.store'

/** Enrollment tokens of an organization: whoever has one may bring in devices of one blueprint. */
export class EnrollmentTokenService {
  constructor(
    private readonly store: EnrollmentTokenStore,
    private readonly hardware: HardwareService,
    private readonly audit: AuditService,
  ) {}

  /** @returns the token beside its row: it is shown this once
   *  @throws DomainError `blueprint_unknown` */
  async create(
    actor: UserActor,
    organizationId: string,
    { blueprintId, name, maximumUses, serialNumbers, expiresInSeconds }: NewEnrollmentToken,
  ): Promise<EnrollmentToken & { readonly token: string }> {
    const token = newEnrollmentSecret()
    await this.hardware.requireBlueprint(organizationId, blueprintId)
    const made = await this.store.transaction(async (tx) => {
      const row = await this.store.create(tx, {
        organizationId,
        blueprintId,
        name,
        maximumUses,
        serialNumbers: [...new Set(serialNumbers)],
        tokenHash: hashOf(token),
        expiresAt: new Date(Date.now() + expiresInSeconds * 1_000),
        createdBy: actor.id,
      })
      await this.audit.record(tx, {
        actor,
        action: 'enrollment_token.created',
        subject: { kind: 'enrollment_token', id: row.id },
        organizationId,
        detail: { name, maximumUses, expiresAt: row.expiresAt.toISOString() },
      })
      return row
    })
    return { ...made, token }
  }

  /** Newest first. */
  async list(organizationId: string, page: { limit: number; cursor?: string }): Promise<Page<EnrollmentToken>> {
    const before = decodeCursor(page.cursor, z.uuid())
    const rows = await this.store.list(organizationId, page.limit + 1, before)
    return pageFrom(rows, page.limit, (row) => row.id)
  }

  /** From now on nobody comes in with it; the devices that did are not touched. Twice is once.
   *  @throws DomainError `enrollment_token_not_found` */
  async revoke(actor: UserActor, organizationId: string, id: string): Promise<void> {
    await this.store.transaction(async (tx) => {
      const row = await this.store.find(tx, organizationId, id)
      if (!row) throw new DomainError('not_found', 'enrollment_token_not_found', 'There is no such enrollment token.')
      if (!(await this.store.revoke(tx, id))) return
      await this.audit.record(tx, {
        actor,
        action: 'enrollment_token.revoked',
        subject: { kind: 'enrollment_token', id },
        organizationId,
        detail: { name: row.name, uses: row.uses },
      })
    })
  }
}
