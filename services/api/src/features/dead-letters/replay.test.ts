import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { testIngestion } from '../../testing/ingestion'
import { batchOf, garbageOf, reportOf } from '../../testing/reports'
import { DeadLetterUpkeep } from './dead-letters.upkeep'

let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let ingestion: ReturnType<typeof testIngestion>

beforeAll(async () => {
  api = await startTestApi()
})
afterAll(() => api?.stop())
beforeEach(async () => {
  home = await furnish(api)
  ingestion = testIngestion(api.context.database.pool)
})

const ingest = (...messages: Parameters<typeof batchOf>[0]) => ingestion.service.ingest(batchOf(messages))
const call = (method: string, path: string, body?: unknown) => api.call(method, path, { token: home.owner.token, body })
const letters = async (query = '') => (await call('get', `/devices/${home.device.id}/dead-letters${query}`)).body.items
const replay = (id: string) => call('post', `/dead-letters/${id}/replay`, undefined)
const replayAll = (body: object = {}) => call('post', `/devices/${home.device.id}/dead-letters/replay`, body)
const totals = async () => (await call('get', `/devices/${home.device.id}/telemetry/reconciliation`)).body.totals
const samples = async () => (await call('get', `/devices/${home.device.id}/telemetry`)).body.items
const mend = () =>
  api.context.database.pool.query(
    `INSERT INTO metrics (id, supported_component_id, name, kind) VALUES (gen_random_uuid(), $1, 'pressure', 'number')`,
    [home.component.id],
  )

it('stores a letter after its cause is mended, at its own time, and moves its count', async () => {
  const at = Date.now() - 60_000
  await ingest(reportOf(home.device.id, { pressure: 990 }, { at }), reportOf(home.device.id, { temperature: 1 }))
  const [letter] = await letters('?state=open')
  expect(letter).toMatchObject({ reason: 'unknown_metric', readable: true, replayedAt: null })
  expect(await replay(letter.id)).toMatchObject({ status: 409, body: { code: 'still_refused' } })
  expect(await totals()).toEqual({ received: 2, committed: 1, duplicate: 0, deadLettered: 1, closes: true })
  await mend()
  expect(await replay(letter.id)).toMatchObject({ status: 200, body: { id: letter.id, result: 'committed' } })
  expect(await samples()).toContainEqual(
    expect.objectContaining({ capturedAt: new Date(at).toISOString(), metrics: { pressure: 990 } }),
  )
  for (const fold of [false, true]) {
    if (fold) await ingestion.folding()
    expect(await totals()).toEqual({ received: 2, committed: 2, duplicate: 0, deadLettered: 0, closes: true })
  }
  expect(await letters('?state=open')).toEqual([])
  expect(await letters('?state=replayed')).toMatchObject([{ id: letter.id, replayResult: 'committed' }])
  expect(await replay(letter.id)).toMatchObject({ status: 409, body: { code: 'already_replayed' } })
})

it('keeps the time of receipt of a report that has no timestamp', async () => {
  const receivedAt = Date.now() - 3_600_000
  await ingest(reportOf(home.device.id, { pressure: 1 }, { receivedAt }))
  await mend()
  await replayAll()
  expect(await samples()).toMatchObject([{ capturedAt: new Date(receivedAt).toISOString() }])
})

it('says duplicate when everything is there already', async () => {
  const at = Date.now()
  await ingest(reportOf(home.device.id, { pressure: 1 }, { at }))
  await mend()
  await ingest(reportOf(home.device.id, { pressure: 2 }, { at }))
  expect((await replayAll()).body).toMatchObject({ looked: 1, duplicate: 1, committed: 0 })
  expect(await totals()).toEqual({ received: 2, committed: 1, duplicate: 1, deadLettered: 0, closes: true })
})

it('cannot store what was never readable', async () => {
  await ingest(garbageOf(home.device.id))
  const [letter] = await letters()
  expect(letter.readable).toBe(false)
  expect(await replay(letter.id)).toMatchObject({ status: 409, body: { code: 'not_readable' } })
  expect((await replayAll()).body).toMatchObject({ looked: 1, unreadable: 1, refused: 0, nextCursor: null })
})

it('goes on after those that are still refused, in parts, and counts every letter once', async () => {
  const now = Date.now()
  await ingest(
    ...Array.from({ length: 25 }, (_, i) =>
      reportOf(home.device.id, i % 5 === 0 ? { colour: 1 } : { pressure: i }, { at: now - i }),
    ),
  )
  await mend()
  const seen: Array<Record<string, number>> = []
  let cursor: string | undefined
  do {
    const { body } = await replayAll({ limit: 10, ...(cursor ? { cursor } : {}) })
    seen.push(body)
    cursor = body.nextCursor ?? undefined
  } while (cursor)
  const sum = (name: string) => seen.reduce((all, answer) => all + (answer[name] ?? 0), 0)
  expect([sum('looked'), sum('committed'), sum('refused')]).toEqual([25, 20, 5])
  expect(seen[0]?.reasons).toEqual({ unknown_metric: 2 })
  expect(await totals()).toEqual({ received: 25, committed: 20, duplicate: 0, deadLettered: 5, closes: true })
})

it('stores and counts a letter once when two people replay it at once', async () => {
  const now = Date.now()
  await ingest(...Array.from({ length: 40 }, (_, i) => reportOf(home.device.id, { pressure: i }, { at: now - i })))
  await mend()
  const answers = await Promise.all([replayAll(), replayAll(), replayAll()])
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
  expect(answers.reduce((all, { body }) => all + body.committed + body.duplicate, 0)).toBe(40)
  const { received, deadLettered, closes } = await totals()
  expect({ received, deadLettered, closes }).toEqual({ received: 40, deadLettered: 0, closes: true })
  expect(await samples()).toHaveLength(40)
})

it('takes filters: organization, device, reason, time of receipt', async () => {
  const long = Date.now() - 7_200_000
  await ingest(
    reportOf(home.device.id, { pressure: 1 }, { receivedAt: long }),
    reportOf(home.device.id, { temperature: 100 }),
  )
  await mend()
  const path = `/organizations/${home.organization.id}/dead-letters`
  expect((await call('get', `${path}?reason=out_of_range`)).body.items).toHaveLength(1)
  expect((await call('get', `/dead-letters?organizationId=${home.organization.id}`)).body.items).toHaveLength(2)
  const from = new Date(long + 1_000).toISOString()
  expect((await call('post', `${path}/replay`, { from })).body).toMatchObject({ looked: 1, refused: 1 })
  expect((await call('post', `${path}/replay`, { reason: 'unknown_metric' })).body).toMatchObject({ committed: 1 })
})

it('is written in the audit', async () => {
  await ingest(reportOf(home.device.id, { pressure: 1 }))
  await mend()
  await replayAll()
  const { body } = await call('get', `/organizations/${home.organization.id}/audit`)
  expect(body.items[0]).toMatchObject({ action: 'dead_letters.replayed', detail: { committed: 1 } })
})

describe('the upkeep', () => {
  const upkeep = () => new DeadLetterUpkeep(api.context.database.pool, { info() {}, warn() {} } as never)
  const set = (sql: string) =>
    api.context.database.pool.query(`UPDATE organizations SET ${sql} WHERE id = $1`, [home.organization.id])

  it('removes letters past the retention of their organization', async () => {
    const day = 86_400_000
    await ingest(
      reportOf(home.device.id, { pressure: 1 }, { at: Date.now(), receivedAt: Date.now() - 3 * day }),
      reportOf(home.device.id, { pressure: 1 }),
    )
    await upkeep().run()
    expect(await letters()).toHaveLength(2)
    await set('dead_letter_retention_days = 2')
    await upkeep().run()
    expect(await letters()).toHaveLength(1)
  })

  it('removes the oldest when they take too much room, those over budget first', async () => {
    const big = 'x'.repeat(100_000)
    for (let i = 0; i < 15; i += 1) await ingest(garbageOf(home.device.id, big))
    await api.context.database.pool.query(
      `UPDATE dead_letters SET reason = 'over_budget'
        WHERE id IN (SELECT id FROM dead_letters WHERE device_id = $1 ORDER BY id DESC LIMIT 5)`,
      [home.device.id],
    )
    await set('dead_letter_max_megabytes = 1')
    await upkeep().run()
    const left: { reason: string }[] = await letters()
    expect(left.map(({ reason }) => reason)).toEqual(Array(10).fill('malformed'))
  })
})
