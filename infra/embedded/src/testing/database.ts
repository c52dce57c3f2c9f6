import { randomBytes } from 'node:crypto'
import { Client } from 'pg'

/** Environment variables that the global setup leaves for the tests. */
export const DATABASE_SERVER = 'ARES_TEST_DATABASE_SERVER'
export const DATABASE_TEMPLATE = 'ARES_TEST_DATABASE_TEMPLATE'

export interface TestDatabase {
  readonly url: string
  /** Removes it, open connections or not. */
  drop(): Promise<void>
}

/**
 * A database of its own for one test file: migrated, empty, in the PostgreSQL of the jest run.
 * @param from 'migrated' (a copy of the template) or 'empty' (no table at all, for tests of the migrations)
 */
export async function createTestDatabase(from: 'migrated' | 'empty' = 'migrated'): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`
  const template = from === 'migrated' ? variable(DATABASE_TEMPLATE) : 'template0'
  await administer(`CREATE DATABASE ${name} TEMPLATE ${template}`)
  const url = new URL(variable(DATABASE_SERVER))
  url.pathname = `/${name}`
  return { url: url.href, drop: () => administer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) }
}

async function administer(statement: string): Promise<void> {
  const client = new Client({ connectionString: variable(DATABASE_SERVER) })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

function variable(name: string): string {
  const value = process.env[name]
  if (!value)
    throw new Error(`${name} is not set: run the tests with jest from the repository, its global setup does it`)
  return value
}
