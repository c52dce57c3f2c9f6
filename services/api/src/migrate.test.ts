import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { Client } from 'pg'
import { migrate } from './migrate'

describe('migrate', () => {
  let database: TestDatabase
  let client: Client
  let dir: string
  beforeEach(async () => {
    database = await createTestDatabase('empty')
    client = new Client({ connectionString: database.url })
    await client.connect()
    dir = mkdtempSync(join(tmpdir(), 'ares-migrations-'))
    cpSync(join(__dirname, '../prisma/migrations'), dir, { recursive: true })
  })
  afterEach(async () => {
    await client.end()
    await database.drop()
    rmSync(dir, { recursive: true, force: true })
  })

  const add = (name: string, sql: string) => {
    mkdirSync(join(dir, name))
    writeFileSync(join(dir, name, 'migration.sql'), sql)
  }

  it('applies each migration once, whoever asks and however many at a time', async () => {
    const all = await Promise.all([1, 2, 3].map(() => migrate({ connectionString: database.url, dir })))
    expect(all.filter((applied) => applied.length > 0)).toHaveLength(1)
    expect(await migrate({ connectionString: database.url, dir })).toEqual([])
    const { rows } = await client.query('SELECT version FROM directory_head')
    expect(rows).toEqual([{ version: '0' }])
  })

  it('leaves nothing of a migration that fails, records it, and does not go on over it', async () => {
    await migrate({ connectionString: database.url, dir })
    add('29991231000000_bad', 'CREATE TABLE half (id int); SELECT 1 / 0;')
    add('29991231000001_next', 'CREATE TABLE after_it (id int);')
    await expect(migrate({ connectionString: database.url, dir })).rejects.toThrow(
      '29991231000000_bad failed: division by zero',
    )
    await expect(migrate({ connectionString: database.url, dir })).rejects.toThrow('was begun and did not finish')
    const { rows } = await client.query(`SELECT to_regclass('half') AS half, to_regclass('after_it') AS after_it`)
    expect(rows).toEqual([{ half: null, after_it: null }])
  })

  it('makes daily partitions in UTC, each once', async () => {
    await migrate({ connectionString: database.url, dir })
    await client.query(`SET TIME ZONE 'Pacific/Auckland'`)
    const made = () =>
      client.query(`SELECT ensure_telemetry_partition('2025-12-08') AS made`).then(({ rows }) => rows[0].made)
    expect([await made(), await made()]).toEqual([true, false])
    const insert = (at: string) => client.query(`INSERT INTO telemetry VALUES (1, $1, '{}')`, [at])
    await insert('2025-12-08T00:00:00.000Z')
    await insert('2025-12-08T23:59:59.999Z')
    await expect(insert('2025-12-09T00:00:00.000Z')).rejects.toThrow('no partition')
    await expect(insert('2025-12-08T00:00:00.000Z')).rejects.toThrow('duplicate key')
  })
})
