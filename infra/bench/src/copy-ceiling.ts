import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Client } from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'

/**
 * The ceiling: the rows that are in the table now, by COPY into a table of the same shape (key, partition), with nothing
 * else to do: no broker, no check, one transaction. @returns rows a second
 */
export async function copyRowsPerSecond(client: Client): Promise<number> {
  const chunks: Buffer[] = []
  // COPY of a partitioned table takes a query only.
  const source = client.query(copyTo('COPY (SELECT * FROM telemetry) TO STDOUT'))
  for await (const chunk of source) chunks.push(chunk as Buffer)
  await client.query(MAKE_TABLE)
  try {
    const startedAt = performance.now()
    const target = client.query(copyFrom('COPY bench_copy FROM STDIN'))
    await pipeline(Readable.from([Buffer.concat(chunks)]), target)
    const seconds = (performance.now() - startedAt) / 1_000
    const { rows } = await client.query<{ count: string }>('SELECT count(*) AS count FROM bench_copy')
    return Number(rows[0]?.count) / seconds
  } finally {
    await client.query('DROP TABLE bench_copy')
  }
}

const MAKE_TABLE = `
  CREATE TABLE bench_copy (LIKE telemetry INCLUDING ALL) PARTITION BY RANGE (captured_at);
  CREATE TABLE bench_copy_all PARTITION OF bench_copy DEFAULT`
