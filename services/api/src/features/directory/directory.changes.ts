import type { PrismaTransaction } from '../../database'

/** The channel on which api's processes hear of a new version (PostgreSQL NOTIFY, payload: the version). */
export const DIRECTORY_CHANNEL = 'ares_directory'

/** One thing of the directory that is not what it was. `id`: device, user, kid, or serial as Vault writes it. */
export interface DirectoryChangeOf {
  readonly kind: 'device' | 'user' | 'session_key' | 'removed_device' | 'removed_user' | 'revoked_certificate'
  readonly id: string
}

/**
 * Writes down that a thing of the directory changed. Belongs at the end of the transaction that changes it: the row lock
 * of `directory_head` is held from here to the commit, and that is what makes versions gap-free in the order of commit.
 * @returns the new version
 */
export async function recordDirectoryChange(tx: PrismaTransaction, change: DirectoryChangeOf): Promise<bigint> {
  const [row] = await tx.$queryRaw<Array<{ version: bigint }>>`
    WITH head AS (UPDATE directory_head SET version = version + 1 WHERE id = 1 RETURNING version),
         change AS (INSERT INTO directory_changes (version, kind, id) SELECT version, ${change.kind}, ${change.id} FROM head)
    SELECT version, pg_notify(${DIRECTORY_CHANNEL}, version::text)::text FROM head`
  if (!row) throw new Error('directory_head has no row: the first migration makes it')
  return row.version
}
