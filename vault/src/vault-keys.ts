import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { z } from 'zod'
import { replaceFile } from './file-replacement'

/**
 * What opens Vault: kept in one file, 0600, outside the certs volume and outside Vault's own data.
 * Whoever reads it owns everything: the unseal key opens the store, the bootstrap credential is equal to root.
 */
export interface VaultKeys {
  readonly unsealKey: string
  /** Only until the first bootstrap has made the bootstrap credential; then it is revoked and taken out. */
  readonly rootToken?: string
  /** The AppRole `bootstrap`, for all later runs. */
  readonly bootstrap?: { readonly roleId: string; readonly secretId: string }
}

const schema = z.object({
  unsealKey: z.string().min(1),
  rootToken: z.string().optional(),
  bootstrap: z.object({ roleId: z.string(), secretId: z.string() }).optional(),
})

/** @returns undefined when there is no such file @throws when it is there and cannot be used */
export async function readVaultKeys(file: string): Promise<VaultKeys | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  // Neither the parser's nor zod's message is passed on: it could quote a key.
  try {
    return schema.parse(JSON.parse(text))
  } catch {
    throw new Error(`${file} is not a file of Vault keys as the bootstrap writes it. Restore it from your backup.`)
  }
}

/** Replaces the file at once and durably. */
export async function writeVaultKeys(file: string, keys: VaultKeys): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true })
  await replaceFile(file, `${JSON.stringify(keys, undefined, 2)}\n`, { mode: 0o600 })
}
