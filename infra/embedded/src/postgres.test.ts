import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client } from 'pg'
import { isAlive } from './foreign-process'
import { startPostgres } from './postgres'
import { createTestDatabase } from './testing/database'

async function query(url: string, statement: string): Promise<Array<Record<string, unknown>>> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(statement)).rows
  } finally {
    await client.end()
  }
}

describe('startPostgres', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ares-postgres-test-'))
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  it('keeps its data between starts, and listens on the loopback address only', async () => {
    const first = await startPostgres({ dir })
    await query(first.url, 'CREATE TABLE kept (value int)')
    expect(await query(first.url, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '127.0.0.1' }])
    await first.stop()
    const second = await startPostgres({ dir })
    expect(await query(second.url, 'SELECT * FROM kept')).toEqual([])
    await second.stop()
  })

  it('does not let anyone in without the password', async () => {
    const postgres = await startPostgres({ dir })
    const url = new URL(postgres.url)
    url.password = 'guess'
    await expect(query(url.href, 'SELECT 1')).rejects.toThrow('password authentication failed')
    await postgres.stop()
  })

  it('stops the server that a killed parent left on the same data', async () => {
    const orphan = await startPostgres({ dir })
    const next = await startPostgres({ dir })
    expect(isAlive(orphan.pid)).toBe(false)
    expect(await query(next.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
    await next.stop()
  })

  it('starts again right after kill -9', async () => {
    const killed = await startPostgres({ dir })
    await query(killed.url, 'CREATE TABLE kept AS SELECT 7 AS value')
    killed.kill('SIGKILL')
    expect(await killed.exited).toBe('SIGKILL')
    const next = await startPostgres({ dir })
    expect(await query(next.url, 'SELECT value FROM kept')).toEqual([{ value: 7 }])
    await next.stop()
  })

  it('leaves a process alone that was given the id of an earlier server', async () => {
    const first = await startPostgres({ dir })
    const lock = join(first.folder, 'data/postmaster.pid')
    const text = readFileSync(lock, 'utf8')
    await first.stop()
    const stranger = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
    writeFileSync(lock, text.replace(/^\d+/, String(stranger.pid)))
    const second = await startPostgres({ dir })
    expect(isAlive(stranger.pid!)).toBe(true)
    await second.stop()
    stranger.kill()
  })

  it('says in PostgreSQL’s own words why it did not start', async () => {
    await expect(startPostgres({ dir, settings: { shared_buffers: 'plenty' } })).rejects.toThrow(/shared_buffers/)
  })
})

describe('createTestDatabase', () => {
  it('gives each test file a database of its own and takes it away again', async () => {
    const [one, two] = await Promise.all([createTestDatabase(), createTestDatabase('empty')])
    await query(one.url, 'CREATE TABLE mine (value int)')
    await expect(query(two.url, 'SELECT * FROM mine')).rejects.toThrow('does not exist')
    await Promise.all([one.drop(), two.drop()])
    await expect(query(one.url, 'SELECT 1')).rejects.toThrow('does not exist')
  })
})
