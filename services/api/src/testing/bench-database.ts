import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startPostgres } from '@ares/embedded'
import { Pool, type PoolClient } from 'pg'
import { migrate } from '../migrate'

/** A migrated PostgreSQL of its own for a benchmark, fsync on, over one connection; removed afterwards. */
export async function withBenchDatabase(work: (pool: Pool) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'ares-store-bench-'))
  chmodSync(dir, 0o711)
  const settings = { autovacuum: 'off' }
  const postgres = await startPostgres({ dir: join(dir, 'postgres'), database: 'bench', settings })
  const pool = new Pool({ connectionString: postgres.url, max: 1 })
  try {
    await migrate({ connectionString: postgres.url })
    await work(pool)
  } finally {
    await pool.end()
    await postgres.stop()
    rmSync(dir, { recursive: true, force: true })
  }
}

/** User and system time of the connection's backend so far, microseconds: fields 14 and 15 of /proc (Linux), in hundredths
 *  of a second. */
export async function backendCpuMicros(connection: Pool | PoolClient): Promise<number> {
  const { rows } = await connection.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  const fields = readFileSync(`/proc/${rows[0]?.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}
