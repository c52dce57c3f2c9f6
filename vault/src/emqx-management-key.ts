import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { VaultError } from '@ares/chassis'
import { writeIfDifferent } from './certs-volume'
import { type Setup, textOf } from './setup'

/** Where api reads the key of EMQX's management API, through KV version 2. */
export const EMQX_MANAGEMENT_PATH = 'kv/data/ares/emqx-management'

export interface EmqxManagementKey {
  readonly key: string
  readonly secret: string
}

/** Makes the key once; only its creator ever writes it (`cas: 0`), so two bootstraps at once agree on one. */
export async function ensureEmqxManagementKey(setup: Setup): Promise<EmqxManagementKey> {
  const { vault } = setup
  const present = await readKey(setup)
  if (present) return present
  const made = { key: `ares-${randomBytes(6).toString('hex')}`, secret: randomBytes(32).toString('base64url') }
  try {
    await setup.change('EMQX management key', () =>
      vault.write(EMQX_MANAGEMENT_PATH, { data: made, options: { cas: 0 } }),
    )
    return made
  } catch (error) {
    const other = error instanceof VaultError && error.code === 'rejected' ? await readKey(setup) : undefined
    if (other) return other
    throw error
  }
}

/** EMQX reads this file at its start (`api_key.bootstrap_file`): `key:secret` lines. @returns what was changed */
export async function writeEmqxApiKeyFile(
  file: string,
  { key, secret }: EmqxManagementKey,
  gid?: number,
): Promise<string[]> {
  await mkdir(path.dirname(file), { recursive: true })
  return writeIfDifferent(file, `${key}:${secret}\n`, { mode: 0o640, gid })
}

async function readKey({ vault }: Setup): Promise<EmqxManagementKey | undefined> {
  const answer = await vault.read(EMQX_MANAGEMENT_PATH)
  if (!answer) return undefined
  const inner = { data: (answer.data.data ?? {}) as Record<string, unknown>, warnings: [] }
  return {
    key: textOf(inner, 'key', EMQX_MANAGEMENT_PATH),
    secret: textOf(inner, 'secret', EMQX_MANAGEMENT_PATH),
  }
}
