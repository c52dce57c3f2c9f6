import { PrismaPg } from '@prisma/adapter-pg'
import { Pool } from 'pg'
import { outliveBrokenConnections } from './database/ingest-pool'
import { Prisma, PrismaClient } from './generated/prisma/client'
import type { TransactionClient } from './generated/prisma/internal/prismaNamespace'

/** What a store gets inside a transaction: everything of the client except what opens or ends one. */
export type PrismaTransaction = TransactionClient

/** The one way to PostgreSQL. `prisma` for the rules of the rooms, `pool` for SQL where every microsecond counts. */
export interface Database {
  readonly prisma: PrismaClient
  readonly pool: Pool
  /** For connections that a pool cannot lend: LISTEN, COPY. */
  readonly connectionString: string
  /** @throws when the database does not answer a trivial question */
  ping(): Promise<void>
  close(): Promise<void>
}

export interface DatabaseOptions {
  readonly connectionString: string
  /** Connections of the pool, and as many again at most of Prisma's. */
  readonly connections?: number
  /** A connection of the pool that broke while nobody used it. */
  readonly onIdleError?: (error: Error) => void
}

/** Connects when it is first used. */
export function openDatabase(options: DatabaseOptions): Database {
  const { connectionString, connections = 8, onIdleError = () => {} } = options
  const shared = { connectionString, max: connections, connectionTimeoutMillis: 5_000, application_name: 'ares-api' }
  const pool = new Pool(shared)
  pool.on('error', onIdleError)
  outliveBrokenConnections(pool)
  const prisma = new PrismaClient({
    adapter: new PrismaPg(shared, { onPoolError: onIdleError, onConnectionError: onIdleError }),
    // Prisma's 2 s and 5 s are too short for a machine that is busy; a statement that hangs is ended by this all the same.
    transactionOptions: { maxWait: 10_000, timeout: 20_000 },
  })
  return {
    prisma,
    pool,
    connectionString,
    async ping() {
      await pool.query('SELECT 1')
    },
    async close() {
      await prisma.$disconnect()
      await pool.end()
    },
  }
}

/** Whether an error is a broken unique constraint. */
export const isUniqueViolation = (error: unknown): boolean =>
  error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2002'

/** Whether an error is a broken foreign key: something still points there, or what is pointed at is gone. */
export const isForeignKeyViolation = (error: unknown): boolean =>
  error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2003'
