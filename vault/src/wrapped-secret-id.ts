import { type VaultClient, WRAPPING_LIFE_S } from '@ares/chassis'
import type { ServiceName } from '@ares/proto'
import { textOf } from './setup'

export interface WrappedCredential {
  readonly roleId: string
  /** Opens once, to a secret id that can be used once. */
  readonly wrapToken: string
  readonly ttlSeconds: number
}

export const WRAP_TTL = `${WRAPPING_LIFE_S}s`

/**
 * Makes the credentials of a service's next login.
 * @param vault logged in as `cert-agent` (which can get them only wrapped) or `bootstrap`
 */
export async function issueWrappedSecretId(
  vault: VaultClient,
  service: ServiceName,
  wrapTtl: string = WRAP_TTL,
): Promise<WrappedCredential> {
  const role = `auth/approle/role/${service}`
  const roleId = textOf(await vault.read(`${role}/role-id`), 'role_id', `${role}/role-id`)
  const { wrapInfo } = await vault.write(`${role}/secret-id`, {}, { wrapTtl })
  if (!wrapInfo) throw new Error(`Vault gave a secret id of ${service} unwrapped; it was not delivered.`)
  return { roleId, wrapToken: wrapInfo.token, ttlSeconds: wrapInfo.ttlSeconds }
}
