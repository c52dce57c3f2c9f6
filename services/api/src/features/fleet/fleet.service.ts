import type { Logger } from '@ares/chassis'
import type { Role } from '../../generated/prisma/enums'
import type { Finding, FindingSource, Severity } from './findings'

export interface Diagnosis {
  readonly checkedAt: Date
  /** The worst first. */
  readonly items: readonly Finding[]
  /** What could not be looked at, and why: there, no finding means nothing. */
  readonly skipped: ReadonlyArray<{ readonly check: string; readonly why: string }>
}

export interface Membership {
  readonly organizationId: string
  readonly role: Role
}

/** The fleet doctor. */
export class FleetService {
  constructor(
    private readonly sources: readonly FindingSource[],
    private readonly memberships: (userId: string) => Promise<readonly Membership[]>,
    private readonly logger: Logger,
  ) {}

  /** What is wrong in the organizations of a person; for owners, also what is wrong with the house.
   *  @param organizationId only this one; one that is not the person's shows nothing of it */
  async diagnose(userId: string, organizationId?: string): Promise<Diagnosis> {
    const own = await this.memberships(userId)
    const isOwner = own.some(({ role }) => role === 'owner')
    const ids = own
      .map((one) => one.organizationId)
      .filter((id) => organizationId === undefined || id === organizationId)
    const skipped: Array<{ check: string; why: string }> = []
    const lists = await Promise.all(
      this.sources.map(async (source) => {
        try {
          return await source.find(ids)
        } catch (error) {
          this.logger.warn('a part of the fleet could not be looked at', { check: source.name, error })
          skipped.push({ check: source.name, why: error instanceof Error ? error.message : String(error) })
          return []
        }
      }),
    )
    const visible = lists.flat().filter((finding) => finding.organizationId !== null || isOwner)
    const items = visible.sort((a, b) => RANK[a.severity] - RANK[b.severity] || a.code.localeCompare(b.code))
    return { checkedAt: new Date(), items, skipped }
  }
}

const RANK: Readonly<Record<Severity, number>> = { critical: 0, warning: 1, info: 2 }
