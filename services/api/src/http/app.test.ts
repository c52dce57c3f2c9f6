import { furnish, startTestApi, type TestApi } from '../testing/api'

describe('the HTTP application', () => {
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>

  beforeAll(async () => {
    api = await startTestApi()
    home = await furnish(api)
  })
  afterAll(() => api.stop())

  it('names every field that is wrong, as a problem document', async () => {
    const answer = await api.call('post', `/blueprints/${home.blueprint.id}/components`, {
      token: home.owner.token,
      body: {
        name: 'a b',
        metrics: [
          { name: 'x', kind: 'number', minimum: 2, maximum: 1 },
          { name: 'y', kind: 'color' },
        ],
      },
    })
    expect(answer.status).toBe(400)
    expect(answer.headers.get('content-type')).toContain('application/problem+json')
    expect(answer.body).toMatchObject({
      code: 'invalid_request',
      status: 400,
      type: 'urn:ares:problem:invalid_request',
    })
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toEqual(
      expect.arrayContaining(['body.name', 'body.metrics[1].kind']),
    )
  })

  it('answers 404 for an unknown path and 405 with Allow for an unknown method', async () => {
    expect((await api.call('get', '/nothing')).body.code).toBe('route_not_found')
    const answer = await api.call('delete', '/organizations')
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST, GET'])
  })

  it('takes no broken JSON, no other type and nothing too large', async () => {
    const token = home.owner.token
    const broken = await api.call('post', '/organizations', { token, body: '{"name":' })
    expect([broken.status, broken.body.code]).toEqual([400, 'invalid_json'])
    const text = await api.call('post', '/organizations', {
      token,
      body: 'x',
      headers: { 'content-type': 'text/plain' },
    })
    expect([text.status, text.body.code]).toEqual([400, 'not_json'])
    const large = await api.call('post', '/organizations', { token, body: { name: 'x'.repeat(300_000) } })
    expect([large.status, large.body.code]).toEqual([413, 'body_too_large'])
  })

  it('takes an id that cannot be one for an id that is not there', async () => {
    const answer = await api.call('get', '/devices/%00', { token: home.owner.token })
    expect([answer.status, answer.body.code]).toEqual([404, 'device_not_found'])
  })

  it('keeps the request id of the caller and makes one where there is none', async () => {
    const given = await api.call('get', '/nothing', { headers: { 'x-request-id': 'abc-123' } })
    expect([given.headers.get('x-request-id'), given.body.requestId]).toEqual(['abc-123', 'abc-123'])
    expect((await api.call('get', '/nothing')).headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('pages through a list with a cursor, and refuses one that is not ours', async () => {
    const { token } = home.owner
    const path = `/organizations/${home.organization.id}/devices`
    for (const name of ['A', 'B', 'C', 'D']) {
      await api.call('post', path, { token, body: { name, blueprintId: home.blueprint.id } })
    }
    const names: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await api.call('get', `${path}?limit=2${cursor && `&cursor=${cursor}`}`, { token })
      names.push(...body.items.map((device: { name: string }) => device.name))
      cursor = body.nextCursor
    }
    expect(names).toEqual(['Roof', 'A', 'B', 'C', 'D'])
    expect((await api.call('get', `${path}?cursor=bad`, { token })).body.code).toBe('invalid_cursor')
    expect((await api.call('get', `${path}?limit=0`, { token })).body.errors[0].field).toBe('query.limit')
  })

  it('serves a documentation page that asks nobody else', async () => {
    const page = await fetch(`${api.origin}/docs`)
    expect(page.status).toBe(200)
    const html = await page.text()
    expect(html).not.toMatch(/https?:\/\//)
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
    for (const [, file] of html.matchAll(/(?:src|href)="([^"]+)"/g)) {
      expect([file, (await fetch(`${api.origin}/docs/${file}`)).status]).toEqual([file, 200])
    }
  })

  it('measures requests by route, not by path', async () => {
    await api.call('get', `/devices/${home.device.id}`, { token: home.owner.token })
    const metrics = await api.context.metrics.metrics()
    expect(metrics).toContain('route="/api/v1/devices/{deviceId}"')
    expect(metrics).not.toContain(home.device.id)
  })
})
