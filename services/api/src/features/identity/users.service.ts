import { DomainError } from '@ares/chassis'
import type { PrismaTransaction } from '../../database'
import type { UserActor } from '../../http/route'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import { DEFAULT_COST, hashPassword, type PasswordCost, verifyPassword } from './password'
import type { SessionStore } from './sessions.store'
import type { NewPerson, Person, UserStore } from './users.store'

/** People. There is no registration: the first one comes from the settings, the others are added by an owner. */
export class UserService {
  constructor(
    private readonly store: UserStore,
    private readonly sessions: SessionStore,
    private readonly audit: AuditService,
    private readonly cost: PasswordCost = DEFAULT_COST,
  ) {}

  /** Makes the first person when there is nobody yet. @returns whether it did */
  async ensureFirst(email: string, password: string): Promise<boolean> {
    if (!(await this.store.isEmpty())) return false
    const passwordHash = await hashPassword(password, this.cost)
    return this.store.transaction(async (tx) => {
      // Two replicas may start at once.
      await this.store.lockFirst(tx)
      if (!(await this.store.isEmpty(tx))) return false
      const { id } = await this.store.create(tx, { email: email.toLowerCase(), passwordHash })
      await this.audit.record(tx, { actor: { kind: 'system' }, action: 'user.created', subject: { kind: 'user', id } })
      await recordDirectoryChange(tx, { kind: 'user', id })
      return true
    })
  }

  async get(id: string): Promise<Person> {
    const { email, name } = await this.store.get(id)
    return { id, email, name }
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
      const { passwordHash } = await this.store.get(actor.id)
      if (!(await verifyPassword(change.password.current, passwordHash))) {
        throw new DomainError('forbidden', 'wrong_password', 'The present password is another one.')
      }
      data.passwordHash = await hashPassword(change.password.next, this.cost)
    }
    return this.store.transaction(async (tx) => {
      const person = await this.store.change(tx, actor.id, data)
      if (data.passwordHash) await this.sessions.revokeAllOf(tx, actor.id)
      const action = data.passwordHash ? 'user.password_changed' : 'user.changed'
      await this.audit.record(tx, { actor, action, subject: { kind: 'user', id: actor.id } })
      return person
    })
  }

  hash(password: string): Promise<string> {
    return hashPassword(password, this.cost)
  }

  withEmail(tx: PrismaTransaction, email: string): Promise<Person | null> {
    return this.store.withEmail(email, tx)
  }

  /** Makes a person inside somebody else's transaction; the caller records the directory change. */
  create(tx: PrismaTransaction, person: NewPerson): Promise<Person> {
    return this.store.create(tx, person)
  }
}
