import { Counter } from 'prom-client'
import { Health } from './health'
import { createLogger } from './log'
import { createMetrics } from './metrics'
import { type OpsServer, startOpsServer } from './ops'

const logger = createLogger({ service: 'test', level: 'error' })

describe('the ops endpoint', () => {
  const health = new Health()
  const metrics = createMetrics('test')
  let server: OpsServer
  const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${server.port}${path}`, init)

  beforeAll(async () => {
    server = await startOpsServer({ bind: { host: '127.0.0.1', port: 0 }, health, metrics, logger })
  })
  afterAll(() => server.stop())

  it('is ready when every named check holds', async () => {
    health.check('broker', () => true)
    health.set('directory', true, 'version 7')
    const answer = await get('/health/ready')
    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual({
      ok: true,
      degraded: false,
      checks: { broker: { ok: true }, directory: { ok: true, detail: 'version 7' } },
    })
  })

  it('is ready and says that somebody should look when a check is degraded', async () => {
    health.check('vault', () => ({ ok: true, degraded: true, detail: 'sealed' }))
    const answer = await get('/health/ready')
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({
      ok: true,
      degraded: true,
      checks: { vault: { ok: true, degraded: true, detail: 'sealed' } },
    })
  })

  it('is not ready, and says why, when one fails, throws or does not answer', async () => {
    health.check('broker', () => {
      throw new Error('not connected')
    })
    health.check('slow', () => new Promise(() => {}))
    const answer = await get('/health/ready')
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({
      ok: false,
      checks: {
        broker: { ok: false, detail: 'not connected' },
        slow: { ok: false, detail: 'no answer in 2000 ms' },
        directory: { ok: true },
      },
    })
    expect((await get('/health/live')).status).toBe(200)
  })

  it('shows metrics in the text format, with the name of the service', async () => {
    new Counter({ name: 'ares_things_total', help: 'x', registers: [metrics] }).inc(3)
    const answer = await get('/metrics')
    expect(answer.headers.get('content-type')).toContain('text/plain')
    const text = await answer.text()
    expect(text).toContain('ares_things_total{service="test"} 3')
    expect(text).toContain('process_cpu_seconds_total')
  })

  it('shows the metrics that are asked for by name, and those alone', async () => {
    new Counter({ name: 'ares_others_total', help: 'x', registers: [metrics] }).inc(4)
    const text = async (query: string) => (await get(`/metrics?${query}`)).text()
    expect(await text('name[]=ares_others_total')).toBe(
      '# HELP ares_others_total x\n# TYPE ares_others_total counter\nares_others_total{service="test"} 4\n',
    )
    expect(await text('name%5B%5D=ares_others_total&name[]=process_cpu_seconds_total')).toMatch(
      /ares_others_total\{.*\} 4\n.*process_cpu_seconds_total/s,
    )
    expect(await text('name[]=there_is_none')).toBe('')
    expect(await text('')).toContain('process_cpu_seconds_total')
  })

  it('has nothing else', async () => {
    expect((await get('/')).status).toBe(404)
    expect((await get('/metrics', { method: 'POST' })).status).toBe(405)
  })

  it('says which address is taken', async () => {
    await expect(
      startOpsServer({ bind: { host: '127.0.0.1', port: server.port }, health, metrics, logger }),
    ).rejects.toThrow(String(server.port))
  })
})
