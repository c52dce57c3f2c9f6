import { until } from '@ares/chassis/testing'
import { API_KEY, TestBroker } from '../testing/test-broker'

describe('the management API', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await TestBroker.start()
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  test('wants a key of the bootstrap file, except for the status', async () => {
    expect(await broker.manage('GET', '/status', undefined, '')).toMatchObject({ status: 200 })
    expect(await broker.manage('GET', '/stats', undefined, '')).toMatchObject({
      status: 401,
      body: { code: 'AUTHORIZATION_HEADER_ERROR' },
    })
    for (const key of ['ares:wrong', 'other:s3cret', ':']) {
      expect(await broker.manage('GET', '/stats', undefined, key)).toMatchObject({
        status: 401,
        body: { code: 'BAD_API_KEY_OR_SECRET' },
      })
    }
    expect((await broker.manage('GET', '/stats', undefined, API_KEY)).status).toBe(200)
  })

  test('a kick in bulk is 204, whoever is there', async () => {
    const identity = await broker.authority.leaf('d1')
    const clients = [
      await broker.connect(identity, { clientId: 'd1' }),
      await broker.connect(identity, { clientId: 'd2' }),
    ]
    const answer = await broker.manage('POST', '/clients/kickout/bulk', ['d1', 'd2', 'nobody'])
    expect(answer).toEqual({ status: 204, body: '' })
    await until(() => clients.every((client) => !client.connected), 'both are closed')
  })

  test.each(['ann@x.org/phone', 'a b', 'a%2Fb', 'Gerät'])('kicks the client %s', async (clientId) => {
    const client = await broker.connect(await broker.authority.leaf('d1'), { clientId })
    expect((await broker.manage('DELETE', `/clients/${encodeURIComponent(clientId)}`)).status).toBe(204)
    await until(() => !client.connected, 'it is closed')
  })

  test('a kick deletes the persistent session', async () => {
    const identity = await broker.authority.leaf('d1')
    const client = await broker.connect(identity, { clientId: 'd1', clean: false })
    await client.endAsync()
    expect((await broker.manage('GET', '/clients/d1')).body).toMatchObject({ clientid: 'd1', connected: false })
    expect((await broker.manage('DELETE', '/clients/d1')).status).toBe(204)
    expect((await broker.manage('GET', '/clients/d1')).status).toBe(404)
  })

  test('describes a client, lists clients, counts them', async () => {
    const identity = await broker.authority.leaf('d1.device.ares4.internal')
    await broker.connect(identity, { clientId: 'd1' })
    expect((await broker.manage('GET', '/clients/d1')).body).toMatchObject({
      clientid: 'd1',
      username: 'd1.device.ares4.internal',
      connected: true,
      ip_address: '127.0.0.1',
      listener: 'ssl:devices',
    })
    expect((await broker.manage('GET', '/clients?page=1&limit=10')).body).toMatchObject({
      data: [{ clientid: 'd1' }],
      meta: { count: 1, hasnext: false },
    })
    expect((await broker.manage('GET', '/stats?aggregate=true')).body).toMatchObject({ 'connections.count': 1 })
  })

  test('cuts 20 clients one after the other in milliseconds each', async () => {
    const identity = await broker.authority.leaf('d1')
    for (let i = 0; i < 20; i++) {
      const client = await broker.connect(identity, { clientId: `k${i}` })
      const closed = new Promise<number>((resolve) => client.once('close', () => resolve(performance.now())))
      const started = performance.now()
      await broker.manage('DELETE', `/clients/k${i}`)
      expect((await closed) - started).toBeLessThan(3_000)
    }
  })
})
