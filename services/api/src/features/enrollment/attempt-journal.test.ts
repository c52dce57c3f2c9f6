import { setTimeout as sleep } from 'node:timers/promises'
import { createLogger } from '@ares/chassis'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { type Database, openDatabase } from '../../database'
import { AuditService } from '../audit/audit.service'
import { AuditStore } from '../audit/audit.store'
import { AttemptJournal, type NotedAttempt } from './attempt-journal'

let test: TestDatabase
let database: Database

beforeAll(async () => {
  test = await createTestDatabase()
  database = openDatabase({ connectionString: test.url })
})
afterAll(async () => {
  await database?.close()
  await test?.drop()
})
afterEach(() => database.pool.query('DELETE FROM audit'))

const attempt = (more: Partial<NotedAttempt> = {}): NotedAttempt => ({
  action: 'device.enrollment_refused',
  subject: { kind: 'enrollment_token', id: 'unknown' },
  reason: 'token_unknown',
  address: '192.0.2.1',
  ...more,
})
const journal = (mostLines?: number) =>
  new AttemptJournal(
    new AuditService(new AuditStore(database.prisma)),
    createLogger({ service: 'api', level: 'fatal' }),
    mostLines,
  )
const rows = () => database.prisma.audit.findMany({ orderBy: { id: 'asc' } })

it('makes one row of what is alike, with a count and the first serial number, and nothing twice', async () => {
  const attempts = journal()
  for (let n = 0; n < 500; n++) attempts.note(attempt({ serialNumber: `SN-${n}` }))
  attempts.note(attempt({ address: '192.0.2.2' }))
  attempts.note(attempt({ reason: 'invalid_request' }))
  await Promise.all([attempts.write(), attempts.write()])
  await attempts.stop()
  expect((await rows()).map(({ detail }) => detail)).toEqual([
    expect.objectContaining({ reason: 'token_unknown', address: '192.0.2.1', serialNumber: 'SN-0', count: 500 }),
    expect.objectContaining({ reason: 'token_unknown', address: '192.0.2.2', count: 1 }),
    expect.objectContaining({ reason: 'invalid_request', address: '192.0.2.1', count: 1 }),
  ])
})

it('a flood from ever new addresses is a bounded number of rows, and every attempt is in one of them', async () => {
  const attempts = journal(250)
  for (let n = 0; n < 5_000; n++) attempts.note(attempt({ address: `2001:db8::${n.toString(16)}` }))
  await attempts.stop()
  const written = await rows()
  expect(written).toHaveLength(251)
  const counts = written.map(({ detail }) => (detail as { count: number }).count)
  expect(counts.reduce((sum, count) => sum + count)).toBe(5_000)
  expect(written.at(-1)).toMatchObject({ subjectId: 'various', detail: { address: 'various', count: 4_750 } })
})

it('keeps what cannot be written now, beside what comes meanwhile', async () => {
  const attempts = journal()
  attempts.note(attempt())
  const noted = Date.now()
  await database.pool.query('ALTER TABLE audit RENAME TO audit_away')
  await sleep(5)
  const writing = attempts.write()
  await Promise.resolve() // it has taken the line
  attempts.note(attempt())
  await writing
  await database.pool.query('ALTER TABLE audit_away RENAME TO audit')
  await attempts.stop()
  const [detail, ...others] = (await rows()).map((row) => row.detail as Record<string, string>)
  const { count, firstAt = '', lastAt = '' } = detail ?? {}
  expect([count, others]).toEqual([2, []])
  expect(Date.parse(firstAt)).toBeLessThanOrEqual(noted)
  expect(Date.parse(lastAt)).toBeGreaterThan(noted)
})
