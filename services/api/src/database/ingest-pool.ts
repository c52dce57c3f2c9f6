import { Pool } from 'pg'

/**
 * Connections for ingestion alone: people's queries cannot use them up, and a network that hangs is noticed, because no
 * statement of ingestion takes that long.
 */
export function openIngestPool(options: {
  readonly connectionString: string
  /** Batches that are written at once. Default 8: what two listeners have under way. */
  readonly connections?: number
  /** A connection that broke while nobody used it. */
  readonly onIdleError?: (error: Error) => void
}): Pool {
  const pool = new Pool({
    connectionString: options.connectionString,
    max: options.connections ?? 8,
    connectionTimeoutMillis: 5_000,
    statement_timeout: 15_000,
    query_timeout: 20_000,
    keepAlive: true,
    application_name: 'ares-api-ingest',
  })
  pool.on('error', options.onIdleError ?? (() => {}))
  outliveBrokenConnections(pool)
  return pool
}

/**
 * The pool listens to its connections only while nobody uses them. One that is reset in use rejects its query and says
 * `error` besides, which nobody hears: and that would be the end of the process.
 */
export function outliveBrokenConnections(pool: Pool): void {
  pool.on('connect', (client) => client.on('error', () => {}))
}
