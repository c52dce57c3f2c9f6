import { addMember, furnish, startTestApi, type TestApi } from '../../testing/api'
import { testIngestion } from '../../testing/ingestion'
import { batchOf, garbageOf, reportOf } from '../../testing/reports'
import { rangesOf } from '../telemetry/batch-record'
import { DeviceBudget } from '../telemetry/device-budget'
import { OverBudgetList } from '../telemetry/over-budget'
import { IngestService } from '../telemetry/telemetry.ingest'

const HOUR_MS = 3_600_000

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
const read = async (path: string, token = home.owner.token) => (await api.call('get', path, { token })).body
const ofDevice = (query = '') => read(`/devices/${home.device.id}/telemetry/reconciliation${query}`)

describe('the reconciliation', () => {
  it('says what became of each message, by hour, folded or not', async () => {
    const at = Date.now()
    const first = reportOf(home.device.id, { temperature: 1 }, { at })
    await ingest(first, garbageOf(home.device.id))
    await ingestion.folding()
    await ingest(first, reportOf(home.device.id, { temperature: 1 }, { at: at - 10 }))
    const { totals, items, nextCursor } = await ofDevice()
    expect(totals).toEqual({ received: 4, committed: 2, duplicate: 1, deadLettered: 1, closes: true })
    const sum = items.reduce((all: number, { received }: { received: number }) => all + received, 0)
    expect([sum, nextCursor]).toEqual([4, null])
    expect(items[0]).toMatchObject({ deviceId: home.device.id, closes: true })
  })

  it('says so when it does not close', async () => {
    await ingest(reportOf(home.device.id, { temperature: 1 }))
    await ingestion.folding()
    await api.context.database.pool.query('UPDATE telemetry_counts SET committed = 0 WHERE device_id = $1', [
      home.device.id,
    ])
    expect(await ofDevice()).toMatchObject({ totals: { closes: false }, items: [{ closes: false }] })
  })

  it('is read page by page, for a device, an organization, and all that a person may see', async () => {
    const now = Date.now()
    for (let hour = 0; hour < 3; hour += 1) {
      await ingest(reportOf(home.device.id, { temperature: hour }, { receivedAt: now - hour * HOUR_MS }))
    }
    for (const path of [
      '/telemetry/reconciliation',
      `/organizations/${home.organization.id}/telemetry/reconciliation`,
      `/devices/${home.device.id}/telemetry/reconciliation`,
    ]) {
      const hours: number[] = []
      let cursor: string | null = ''
      do {
        const page: { items: { hour: string }[]; nextCursor: string | null } = await read(
          `${path}?limit=2${cursor ? `&cursor=${cursor}` : ''}`,
        )
        hours.push(...page.items.map((item) => Date.parse(item.hour)))
        cursor = page.nextCursor
      } while (cursor)
      const begin = Math.floor(now / HOUR_MS) * HOUR_MS
      expect([path, hours]).toEqual([path, [begin, begin - HOUR_MS, begin - 2 * HOUR_MS]])
    }
  })

  it('shows nobody the devices of others', async () => {
    await ingest(reportOf(home.device.id, { temperature: 1 }))
    const stranger = await api.person()
    const path = `/telemetry/reconciliation?organizationId=${home.organization.id}`
    expect(await read(path, stranger.token)).toMatchObject({ items: [], gaps: [], totals: { received: 0 } })
    const viewer = await addMember(api, home.organization.id, 'viewer')
    expect(await read(path, viewer.token)).toMatchObject({ totals: { received: 1 } })
  })

  it('refuses a window that is empty or too long', async () => {
    for (const query of ['?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z', '?from=2020-01-01T00:00:00Z']) {
      expect(await ofDevice(query)).toMatchObject({ status: 400, code: 'invalid_window' })
    }
  })
})

describe('gaps in the sequence', () => {
  const send = (...sequences: number[]) =>
    ingest(
      ...sequences.map((sequence) =>
        reportOf(home.device.id, { temperature: 1 }, { at: Date.now() - (sequence % 10_000), sequence }),
      ),
    )
  const gaps = async () =>
    (await ofDevice()).gaps.map(({ first, last, missing }: Record<string, number>) => [first, last, missing])

  it('are found across batches, folded or not, and close when what is missing comes', async () => {
    await send(1, 2, 3, 7)
    expect(await gaps()).toEqual([[4, 6, 3]])
    await ingestion.folding()
    await send(10, 9, 5)
    expect(await gaps()).toEqual([
      [8, 8, 1],
      [6, 6, 1],
      [4, 4, 1],
    ])
    await ingestion.folding()
    await send(4, 6, 8)
    expect(await gaps()).toEqual([])
    await ingestion.folding()
    expect(await gaps()).toEqual([])
  })

  it('are none where a report was received and refused: it is a dead letter', async () => {
    await ingest(
      reportOf(home.device.id, { temperature: 1 }, { sequence: 1 }),
      reportOf(home.device.id, { pressure: 1 }, { sequence: 2 }),
      reportOf(home.device.id, { temperature: 3 }, { sequence: 3 }),
    )
    expect(await gaps()).toEqual([])
  })

  it('of a device that counts in steps of two are kept to the newest few hundred', async () => {
    await send(...Array.from({ length: 1_500 }, (_, i) => i * 2))
    await ingestion.folding()
    const { rows } = await api.context.database.pool.query(
      'SELECT (SELECT count(*)::int FROM unnest(ranges)) AS n FROM telemetry_sequences WHERE device_id = $1',
      [home.device.id],
    )
    expect(rows[0].n).toBeLessThanOrEqual(500)
    const found = await gaps()
    expect(found[0]).toEqual([2_997, 2_997, 1])
    expect(found.length).toBeGreaterThan(400)
  })

  it('are not seen where a counter began anew, far above', async () => {
    await send(1, 2, 4)
    await send(2_000_000, 2_000_001, 2_000_003)
    expect(await gaps()).toEqual([
      [2_000_002, 2_000_002, 1],
      [3, 3, 1],
    ])
  })

  it('count runs of numbers as one range', () => {
    expect(rangesOf([3, 1, 2, 2, 7])).toEqual([1, 3, 7, 7])
    expect(rangesOf([])).toEqual([])
  })
})

describe('a device over its budget', () => {
  it('has its reports as dead letters, is listed, and hurts nobody else', async () => {
    const { pool } = api.context.database
    const other = (
      await api.call('post', `/organizations/${home.organization.id}/devices`, {
        token: home.owner.token,
        body: { name: 'Cellar', blueprintId: home.blueprint.id },
      })
    ).body
    await api.call('post', `/devices/${other.id}/components`, {
      token: home.owner.token,
      body: { name: 'dht22-1', supportedComponentId: home.component.id },
    })
    const budget = new DeviceBudget({ ratePerSecond: 1, burst: 10 })
    const limited = testIngestion(pool, { budget }).service
    const now = Date.now()
    const loop = Array.from({ length: 30 }, (_, i) => reportOf(home.device.id, { temperature: 1 }, { at: now - i }))
    const answer = await limited.ingest(batchOf([...loop, reportOf(other.id, { temperature: 1 })]))
    expect(answer.refusals.map(({ reason }) => reason)).toEqual(Array(20).fill('over_budget'))
    expect(answer.results.at(-1)).toBe(1)
    const list = new OverBudgetList(pool, budget, { warn() {} } as never)
    await list.flush()
    expect(await read(`/organizations/${home.organization.id}/devices-over-budget`)).toMatchObject({
      items: [{ deviceId: home.device.id, name: 'Roof', refused: 20 }],
    })
    expect((await ofDevice()).totals).toEqual({
      received: 30,
      committed: 10,
      duplicate: 0,
      deadLettered: 20,
      closes: true,
    })
    const replay = await api.call('post', `/devices/${home.device.id}/dead-letters/replay`, {
      token: home.owner.token,
      body: { reason: 'over_budget' },
    })
    expect(replay.body).toMatchObject({ looked: 20, committed: 20 })
  })

  it('does not lose its budget to batches that could not be committed', async () => {
    const budget = new DeviceBudget({ ratePerSecond: 0, burst: 10 })
    const broken = { commit: () => Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' })) }
    const { hardware, store } = ingestion
    const without = new IngestService(hardware, broken, { note() {} }, Date.now, { budget })
    const batch = batchOf([reportOf(home.device.id, { temperature: 1 })])
    for (let i = 0; i < 50; i += 1) await expect(without.ingest(batch)).rejects.toThrow()
    const again = new IngestService(hardware, store, { note() {} }, Date.now, { budget })
    expect((await again.ingest(batch)).refusals).toEqual([])
  })
})
