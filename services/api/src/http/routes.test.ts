import { addMember, furnish, startTestApi, type TestApi, type TestPerson } from '../testing/api'
import type { Route } from './route'

/** Walks every route that is registered: a new route is covered the moment it exists. */
describe('every route', () => {
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  let stranger: TestPerson
  let viewer: TestPerson
  let deadLetterId: string

  beforeAll(async () => {
    api = await startTestApi()
    home = await furnish(api)
    stranger = await api.person()
    viewer = await addMember(api, home.organization.id, 'viewer')
    const { rows } = await api.context.database.pool.query(
      `INSERT INTO dead_letters (device_id, organization_id, topic, payload, reason, received_at)
       VALUES ($1, $2, 'ares4', 'x', 'malformed', now()) RETURNING id`,
      [home.device.id, home.organization.id],
    )
    deadLetterId = rows[0].id
  })
  afterAll(() => api.stop())

  const pathOf = (route: Route): string =>
    route.path.replace(/\{(\w+)\}/g, (_match, name: string) => {
      const ids: Record<string, string> = {
        organizationId: home.organization.id,
        blueprintId: home.blueprint.id,
        deviceId: home.device.id,
        userId: viewer.id,
        deadLetterId,
      }
      return ids[name] ?? '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11'
    })
  const call = (route: Route, token?: string) => api.call(route.method, pathOf(route), { token, body: bodyOf(route) })
  const bodyOf = (route: Route) => (route.body ? {} : undefined)
  const name = (route: Route) => `${route.method} ${route.path}`
  const closed = () => api.routes.filter((route) => route.access !== 'public')
  const scopedRoutes = () => api.routes.filter((route) => typeof route.access !== 'string')

  it('answers nobody without a token, and nobody with a made-up one', async () => {
    expect(closed().length).toBeGreaterThan(20)
    for (const route of closed()) {
      expect([name(route), (await call(route)).status]).toEqual([name(route), 401])
      expect([name(route), (await call(route, 'e30.e30.e30')).status]).toEqual([name(route), 401])
    }
  })

  it('does not tell a stranger that a resource is there', async () => {
    expect(scopedRoutes().length).toBeGreaterThan(15)
    for (const route of scopedRoutes()) {
      const answer = await call(route, stranger.token)
      expect([name(route), answer.status]).toEqual([name(route), 404])
    }
  })

  it('answers a stranger exactly as it would for a resource that is not there', async () => {
    for (const route of scopedRoutes()) {
      const there = await call(route, stranger.token)
      const nowhere = route.path.replace(/\{\w+\}/g, '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11')
      const notThere = await api.call(route.method, nowhere, { token: stranger.token, body: bodyOf(route) })
      const plain = ({ requestId, ...problem }: { requestId: string }) => problem
      expect(plain(there.body)).toEqual(plain(notThere.body))
    }
  })

  it('lets a viewer write nothing', async () => {
    const writes = scopedRoutes().filter((route) => route.method !== 'get')
    expect(writes.length).toBeGreaterThan(8)
    for (const route of writes) {
      const answer = await call(route, viewer.token)
      expect([name(route), answer.status, answer.body.code]).toEqual([name(route), 403, 'role_too_low'])
    }
  })

  it('declares a role above viewer for every write', () => {
    for (const route of scopedRoutes()) {
      if (route.method === 'get' || typeof route.access === 'string') continue
      expect([name(route), route.access.role]).not.toEqual([name(route), 'viewer'])
    }
  })

  it('lets only named routes be public', () => {
    const open = api.routes.filter((route) => route.access === 'public').map(name)
    expect(open).toEqual([
      'post /sessions',
      'post /sessions/refresh',
      'post /devices/{deviceId}/certificates/renewals',
      'post /enrollments',
    ])
  })

  it('is in the OpenAPI document, with its answer and its security', async () => {
    const { body: document } = await api.call('get', '/openapi.json')
    expect(document.openapi).toBe('3.1.0')
    for (const route of api.routes) {
      const operation = document.paths[route.path]?.[route.method]
      expect([name(route), Object.keys(operation?.responses ?? {})]).toEqual([
        name(route),
        expect.arrayContaining([String(route.answer.status), 'default']),
      ])
      expect(operation.security).toEqual(route.access === 'public' ? undefined : [{ bearer: [] }])
    }
    const operations = api.routes.map((route) => document.paths[route.path][route.method].operationId)
    expect(new Set(operations).size).toBe(operations.length)
  })
})
