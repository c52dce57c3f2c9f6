import { mkdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { type VaultClient, VaultError } from '@ares/chassis'
import type { ServiceName } from '@ares/proto'
import { replaceFile } from './file-replacement'
import { issueWrappedSecretId, WRAP_TTL } from './wrapped-secret-id'

export interface CredentialTarget {
  readonly service: ServiceName
  /** The service's own directory, one for each instance: in compose a tmpfs that only agent and service mount. */
  readonly directory: string
  /** Owner of the files; left out, this process's user. Another one takes the right to chown. */
  readonly uid?: number
}

/**
 * `opened`: by the service at its login, so there are as many of these as logins; one more means that somebody else did.
 * `foreign`: somebody put a credential of another role there.
 */
export type DeliveryReason = 'missing' | 'opened' | 'old' | 'foreign'

export interface Delivery {
  readonly service: ServiceName
  readonly directory: string
  readonly reason: DeliveryReason
}

const ROLE_ID = 'role-id'
const WRAPPED_SECRET_ID = 'wrapped-secret-id'

/**
 * Keeps the credentials of the next login in each service's directory, 0400: `role-id` and `wrapped-secret-id`.
 * A service that was restarted, or was cut off for longer than its token lives, finds a fresh one there without a person.
 */
export class CredentialDeliverer {
  constructor(
    private readonly vault: VaultClient,
    private readonly targets: readonly CredentialTarget[],
    private readonly wrapTtl: string = WRAP_TTL,
  ) {}

  /**
   * Looks at each target once and replaces what has been used up, has run out of half its time, or is not there.
   * @returns what was delivered, and why
   */
  async deliver(): Promise<Delivery[]> {
    const delivered: Delivery[] = []
    for (const target of this.targets) {
      const reason = await this.wantsNew(target)
      if (!reason) continue
      const credential = await issueWrappedSecretId(this.vault, target.service, this.wrapTtl)
      await mkdir(target.directory, { recursive: true })
      const access = { mode: 0o400, uid: target.uid }
      await replaceFile(path.join(target.directory, ROLE_ID), credential.roleId, access)
      await replaceFile(path.join(target.directory, WRAPPED_SECRET_ID), credential.wrapToken, access)
      delivered.push({ service: target.service, directory: target.directory, reason })
    }
    return delivered
  }

  private async wantsNew({ service, directory }: CredentialTarget): Promise<DeliveryReason | undefined> {
    const file = path.join(directory, WRAPPED_SECRET_ID)
    try {
      const [token, { mtimeMs }] = await Promise.all([readFile(file, 'utf8'), stat(file)])
      // Looking does not use it up; a token that was opened is unknown to Vault.
      const { creationPath, creationTtlSeconds } = await this.vault.wrappingLookup(token.trim())
      const halfLifeMs = (creationTtlSeconds * 1_000) / 2
      if (creationPath !== `auth/approle/role/${service}/secret-id`) return 'foreign'
      return Date.now() - mtimeMs < halfLifeMs ? undefined : 'old'
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'missing'
      if (error instanceof VaultError && error.code === 'rejected') return 'opened'
      throw error
    }
  }
}
