import type { Pool, PoolClient } from 'pg'

/**
 * Does work in a transaction that only one process at a time is in; who comes while another is at it goes away.
 * @param name of the work, the same in every process
 * @returns what the work returns, undefined when another one is at it
 */
export async function onlyOne<T>(
  pool: Pool,
  name: string,
  work: (client: PoolClient) => Promise<T>,
): Promise<T | undefined> {
  const client = await pool.connect()
  let broken: Error | undefined
  try {
    await client.query('BEGIN')
    const { rows } = await client.query<{ mine: boolean }>(
      'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS mine',
      [`ares ${name}`],
    )
    const result = rows[0]?.mine ? await work(client) : undefined
    await client.query('COMMIT')
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch((reason: Error) => {
      broken = reason
    })
    throw error
  } finally {
    client.release(broken)
  }
}
