import { addMember, furnish, startTestApi, type TestApi } from '../../testing/api'

describe('organizations', () => {
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  beforeAll(async () => {
    api = await startTestApi()
    home = await furnish(api)
  })
  afterAll(() => api.stop())

  const members = (path = '') => `/organizations/${home.organization.id}/members${path}`

  it('are seen by their members only', async () => {
    const stranger = await api.person()
    expect((await api.call('get', '/organizations', { token: stranger.token })).body.items).toEqual([])
    const mine = await api.call('get', '/organizations', { token: home.owner.token })
    expect(mine.body.items).toEqual([expect.objectContaining({ id: home.organization.id, role: 'owner' })])
  })

  it('take a member by e-mail, with a new account when there is none', async () => {
    const { token } = home.owner
    const add = (body: object) => api.call('post', members(), { token, body })
    expect((await add({ email: 'new@example.org', role: 'viewer' })).body.code).toBe('user_unknown')
    const added = await add({ email: 'New@example.org', role: 'viewer', password: 'a long password' })
    expect([added.status, added.body.email]).toEqual([201, 'new@example.org'])
    expect((await add({ email: 'new@example.org', role: 'owner' })).body.code).toBe('already_member')
    const login = await api.call('post', '/sessions', {
      body: { email: 'new@example.org', password: 'a long password' },
    })
    const seen = await api.call('get', `/devices/${home.device.id}`, { token: login.body.accessToken })
    expect(seen.body.name).toBe('Roof')
  })

  it('show a removed member nothing any more, and tell the directory', async () => {
    const gone = await addMember(api, home.organization.id, 'operator')
    const removed = await api.call('delete', members(`/${gone.id}`), { token: home.owner.token })
    expect(removed.status).toBe(204)
    expect((await api.call('get', `/devices/${home.device.id}`, { token: gone.token })).status).toBe(404)
    const change = await api.context.database.prisma.directoryChange.findFirstOrThrow({ orderBy: { version: 'desc' } })
    expect(change).toMatchObject({ kind: 'user', id: gone.id })
  })

  it('keep an owner, even when two owners remove each other at once', async () => {
    const { owner } = home
    const other = await addMember(api, home.organization.id, 'owner')
    const answers = await Promise.all([
      api.call('delete', members(`/${other.id}`), { token: owner.token }),
      api.call('delete', members(`/${owner.id}`), { token: other.token }),
    ])
    expect(answers.filter((answer) => answer.status === 204)).toHaveLength(1)
    const { prisma } = api.context.database
    expect(await prisma.membership.count({ where: { organizationId: home.organization.id, role: 'owner' } })).toBe(1)
  })
})

describe('devices and hardware', () => {
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  beforeAll(async () => {
    api = await startTestApi()
    home = await furnish(api)
  })
  afterAll(() => api.stop())

  const call = (method: string, path: string, body?: object, headers?: Record<string, string>) =>
    api.call(method, path, { token: home.owner.token, body, headers })

  it('have an id that is one DNS label in lower case, and a directory entry', async () => {
    expect(home.device.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    const { prisma } = api.context.database
    expect(await prisma.directoryChange.count({ where: { kind: 'device', id: home.device.id } })).toBe(1)
  })

  it('know their blueprint with its components and metrics', async () => {
    const { body } = await call('get', `/blueprints/${home.blueprint.id}`)
    expect(body.components[0].metrics.map((metric: { name: string }) => metric.name)).toEqual([
      'heater_on',
      'temperature',
    ])
  })

  it('take no blueprint and no component of another organization', async () => {
    const other = await furnish(api)
    const device = await call('post', `/organizations/${home.organization.id}/devices`, {
      name: 'Stolen',
      blueprintId: other.blueprint.id,
    })
    expect([device.status, device.body.code]).toEqual([400, 'blueprint_unknown'])
    const instance = await call('post', `/devices/${home.device.id}/components`, {
      name: 'x',
      supportedComponentId: other.component.id,
    })
    expect([instance.status, instance.body.code]).toEqual([400, 'component_not_supported'])
  })

  it('have names that are taken only once', async () => {
    const { organization, blueprint, component, device } = home
    const codes = [
      await call('post', `/organizations/${organization.id}/blueprints`, { name: blueprint.name }),
      await call('post', `/organizations/${organization.id}/devices`, { name: device.name, blueprintId: blueprint.id }),
      await call('post', `/devices/${device.id}/components`, { name: 'dht22-1', supportedComponentId: component.id }),
      await call('delete', `/blueprints/${blueprint.id}`),
    ].map((answer) => [answer.status, answer.body.code])
    expect(codes).toEqual([
      [409, 'blueprint_exists'],
      [409, 'device_exists'],
      [409, 'component_exists'],
      [409, 'blueprint_in_use'],
    ])
  })

  it('are changed only by who has seen the newest state, when he asks for that', async () => {
    const path = `/devices/${home.device.id}`
    const etag = (await call('get', path)).headers.get('etag') ?? ''
    const first = await call('patch', path, { name: 'Attic' }, { 'if-match': etag })
    expect([first.status, first.body.name]).toEqual([200, 'Attic'])
    const second = await call('patch', path, { name: 'Cellar' }, { 'if-match': etag })
    expect([second.status, second.body.code]).toEqual([412, 'device_changed'])
    expect((await call('patch', path, { name: 'Cellar' })).body.name).toBe('Cellar')
  })

  it('are found by a part of their name', async () => {
    const { body } = await call('get', `/organizations/${home.organization.id}/devices?search=CELL&online=false`)
    expect(body.items.map((device: { name: string }) => device.name)).toEqual(['Cellar'])
  })

  it('leave a trace of every change for the owners', async () => {
    const { body } = await call('get', `/organizations/${home.organization.id}/audit?limit=100`)
    const actions = body.items.map((entry: { action: string }) => entry.action)
    expect(actions).toEqual(
      expect.arrayContaining(['organization.created', 'blueprint.created', 'device.created', 'device.changed']),
    )
    expect(body.items[0]).toMatchObject({ actorKind: 'user', actorId: home.owner.id, address: expect.any(String) })
  })
})
