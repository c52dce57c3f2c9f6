import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { openIngestPool } from './ingest-pool'

let database: TestDatabase

beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database?.drop())

it('outlives a connection that is reset while somebody uses it, between two queries', async () => {
  const pool = openIngestPool({ connectionString: database.url })
  try {
    const client = await pool.connect()
    await client.query('SELECT 1')
    expect(client.emit('error', new Error('read ECONNRESET'))).toBe(true)
    client.release(true)
    expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
  } finally {
    await pool.end()
  }
})
