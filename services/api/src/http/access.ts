import { DomainError } from '@ares/chassis'
import type { Pool } from 'pg'
import type { Role } from '../generated/prisma/enums'
import type { ScopedAccess, ScopeKind, UserActor } from './route'

/** What a person may do in the organization that owns the resource of a path. */
export interface Grant {
  readonly organizationId: string
  readonly role: Role
}

/** Says who a bearer token speaks for. @throws DomainError of kind `unauthenticated` */
export type Authenticate = (token: string) => Promise<Omit<UserActor, 'address'>>

/**
 * The one mechanism of authorization: resource -> organization -> role, in one query, before anything else of a route.
 */
export class AccessControl {
  constructor(private readonly pool: Pool) {}

  /** @throws DomainError `account_disabled` when the person may not be here any more */
  async signedIn(userId: string): Promise<void> {
    const { rowCount } = await this.pool.query('SELECT 1 FROM users WHERE id = $1 AND active', [userId])
    if (!rowCount) throw accountDisabled()
  }

  /**
   * @throws DomainError `<kind>_not_found` when there is no such resource or the person is no member of its
   * organization: the two must not be told apart. `role_too_low` for a member without the right.
   */
  async scoped(userId: string, access: ScopedAccess, id: string): Promise<Grant> {
    const { rows } = await this.pool.query<{ active: boolean; organization_id: string | null; role: Role | null }>(
      {
        name: `access-${access.scope.kind}`,
        text: `SELECT u.active, o.organization_id, m.role
               FROM users u
               LEFT JOIN (${OWNER[access.scope.kind]}) o ON true
               LEFT JOIN memberships m ON m.organization_id = o.organization_id AND m.user_id = u.id
               WHERE u.id = $1`,
      },
      [userId, id],
    )
    const [found] = rows
    if (!found?.active) throw accountDisabled()
    if (!found.organization_id || !found.role) throw notFound(access.scope.kind)
    if (RANK[found.role] < RANK[access.role]) {
      throw new DomainError(
        'forbidden',
        'role_too_low',
        `This needs the role ${access.role} in the organization; yours is ${found.role}.`,
      )
    }
    return { organizationId: found.organization_id, role: found.role }
  }
}

/** Each may do what the ones before may. */
const RANK: Readonly<Record<Role, number>> = { viewer: 1, operator: 2, owner: 3 }

/** The organization of a resource, by the resource's id ($2). */
const OWNER: Readonly<Record<ScopeKind, string>> = {
  organization: 'SELECT id AS organization_id FROM organizations WHERE id = $2::uuid',
  blueprint: 'SELECT organization_id FROM blueprints WHERE id = $2::uuid',
  device: 'SELECT organization_id FROM devices WHERE id = $2::uuid',
  dead_letter: 'SELECT organization_id FROM dead_letters WHERE id = $2::bigint',
}

/** The answer for a resource that is not there, and for one that is a stranger's. */
export const notFound = (kind: string): DomainError =>
  new DomainError(
    'not_found',
    `${kind}_not_found`,
    `There is no such ${kind.replace('_', ' ')}, or you are no member of its organization.`,
  )

const accountDisabled = () =>
  new DomainError('unauthenticated', 'account_disabled', 'This account is switched off or gone.')
