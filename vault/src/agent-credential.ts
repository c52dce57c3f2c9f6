import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { type CredentialSource, type VaultClient, VaultError } from '@ares/chassis'
import { issueSecretId } from './bootstrap-credential'
import { replaceFile } from './file-replacement'

const FILES = { roleId: 'role-id', secretId: 'secret-id' } as const

/**
 * Gives the certificate agent of compose its credential: role-id and secret-id, 0400, in a directory of its own. It is good
 * for every restart, because nobody delivers to the deliverer. One that Vault still knows is kept.
 * @returns what was changed
 */
export async function ensureAgentCredential(vault: VaultClient, directory: string, uid?: number): Promise<string[]> {
  const present = await readCredential(directory)
  if (present && (await isKnown(vault, present.secretId))) return []
  await mkdir(directory, { recursive: true })
  const fresh = await issueSecretId(vault, 'cert-agent')
  await replaceFile(path.join(directory, FILES.roleId), fresh.roleId, { mode: 0o400, uid })
  await replaceFile(path.join(directory, FILES.secretId), fresh.secretId, { mode: 0o400, uid })
  return [`credential of cert-agent in ${directory}`]
}

/** The other end of ensureAgentCredential: read anew for each login. */
export const agentCredentialsFromDirectory = (directory: string): CredentialSource => ({
  async next() {
    const credential = await readCredential(directory)
    if (credential) return credential
    throw new Error(`${directory} does not hold ${FILES.roleId} and ${FILES.secretId}: run the bootstrap first.`)
  },
})

async function readCredential(directory: string): Promise<{ roleId: string; secretId: string } | undefined> {
  try {
    const [roleId, secretId] = await Promise.all(
      [FILES.roleId, FILES.secretId].map(async (name) => (await readFile(path.join(directory, name), 'utf8')).trim()),
    )
    return roleId && secretId ? { roleId, secretId } : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

async function isKnown(vault: VaultClient, secretId: string): Promise<boolean> {
  try {
    const answer = await vault.write('auth/approle/role/cert-agent/secret-id/lookup', { secret_id: secretId })
    return typeof answer.data.secret_id_accessor === 'string'
  } catch (error) {
    if (error instanceof VaultError && (error.code === 'rejected' || error.code === 'not_found')) return false
    throw error
  }
}
