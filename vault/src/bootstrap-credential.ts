import { type CredentialSource, createVaultClient, type VaultClient, VaultError } from '@ares/chassis'
import { ensureAppRole, ensurePolicy } from './policies'
import { Setup, textOf } from './setup'
import { readVaultKeys, type VaultKeys, writeVaultKeys } from './vault-keys'

export interface VaultConnection {
  readonly address: string
  readonly caPem?: string
}

/**
 * Logs in for a bootstrap, with a token that may do everything (see policies/bootstrap.hcl).
 *
 * The root token lives only in the first run: it makes the AppRole `bootstrap`, whose credential is stored beside the
 * unseal key, and is then revoked. Each step is stored before the next, so a run that was cut off anywhere is taken up:
 *
 *     { unsealKey, rootToken } --credential made--> { .., rootToken, bootstrap } --root revoked--> { unsealKey, bootstrap }
 *
 * The caller revokes the token (revokeSelf) and closes the client when it is done.
 * @throws when the key file is missing or its credential is refused
 */
export async function loginForBootstrap(connection: VaultConnection, keyFile: string): Promise<VaultClient> {
  const keys = await readVaultKeys(keyFile)
  if (!keys)
    throw new Error(`${keyFile}, which holds the bootstrap credential, is missing. Restore it from your backup.`)
  const complete = keys.bootstrap ? keys : await makeCredential(connection, keyFile, keys)

  const vault = createVaultClient(connection)
  try {
    if (!complete.bootstrap) throw new Error(`${keyFile} holds neither a root token nor a bootstrap credential.`)
    const { roleId, secretId } = complete.bootstrap
    vault.token = (await vault.login(roleId, secretId)).token
    // Only now that the other way in is proven.
    if (complete.rootToken) await revokeRoot(connection, keyFile, complete)
    return vault
  } catch (error) {
    vault.close()
    if (error instanceof VaultError && error.code === 'rejected') {
      throw new Error(
        `The bootstrap credential in ${keyFile} is refused by this Vault server: does it belong to another?`,
      )
    }
    throw error
  }
}

/**
 * Credentials for the certificate agent where they must not lie on a disk (the embedded stack): a single-use secret id,
 * made for each login with the bootstrap credential.
 */
export const agentCredentialsFromBootstrap = (connection: VaultConnection, keyFile: string): CredentialSource => ({
  async next() {
    const vault = await loginForBootstrap(connection, keyFile)
    try {
      return await issueSecretId(vault, 'cert-agent', { num_uses: 1, ttl: '120s' })
    } finally {
      await vault.revokeSelf().catch(() => {}) // it ends by itself within the hour
      vault.close()
    }
  },
})

/** A secret id in the clear, for those who deliver to others and have nobody to deliver to them. */
export async function issueSecretId(
  vault: VaultClient,
  role: string,
  limits: { readonly num_uses?: number; readonly ttl?: string } = {},
): Promise<{ readonly roleId: string; readonly secretId: string }> {
  const role_id = `auth/approle/role/${role}/role-id`
  const secret_id = `auth/approle/role/${role}/secret-id`
  return {
    roleId: textOf(await vault.read(role_id), 'role_id', role_id),
    secretId: textOf(await vault.write(secret_id, limits), 'secret_id', secret_id),
  }
}

async function makeCredential(connection: VaultConnection, keyFile: string, keys: VaultKeys): Promise<VaultKeys> {
  const root = createVaultClient({ ...connection, token: keys.rootToken })
  try {
    const setup = new Setup(root, { change: () => {}, warning: () => {} })
    await ensureAppRoleAuth(setup)
    await ensurePolicy(setup, 'bootstrap')
    await ensureAppRole(setup, 'bootstrap')
    const complete = { ...keys, bootstrap: await issueSecretId(root, 'bootstrap') }
    await writeVaultKeys(keyFile, complete)
    return complete
  } finally {
    root.close()
  }
}

export async function ensureAppRoleAuth(setup: Setup): Promise<void> {
  const present = await setup.vault.read('sys/auth')
  if (present?.data['approle/']) return
  await setup.change('auth approle', () => setup.vault.write('sys/auth/approle', { type: 'approle' }))
}

async function revokeRoot(connection: VaultConnection, keyFile: string, keys: VaultKeys): Promise<void> {
  const root = createVaultClient({ ...connection, token: keys.rootToken })
  try {
    await root.revokeSelf()
  } catch (error) {
    // An earlier run revoked it and was cut off before it could write that down.
    if (!(error instanceof VaultError) || error.code !== 'token_gone') throw error
  } finally {
    root.close()
  }
  const { rootToken: _, ...rest } = keys
  await writeVaultKeys(keyFile, rest)
}
