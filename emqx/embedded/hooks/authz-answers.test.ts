import { until } from '@ares/chassis/testing'
import type { MqttClient } from 'mqtt'
import type { HookAnswer } from '../testing/hook-server'
import { TestBroker } from '../testing/test-broker'

/** The measured table of EMQX 5.8.9 with deny_action = ignore: answer of the HTTP source → is it delivered, SUBACK. */
const allow = { result: 'allow' }
const form = 'application/x-www-form-urlencoded'
const answers: ReadonlyArray<readonly [what: string, answer: HookAnswer, verdict: 'allow' | 'deny' | 'nomatch']> = [
  ['200 allow', { body: allow }, 'allow'],
  ['200 allow with charset', { contentType: 'application/json; charset=utf-8', body: allow }, 'allow'],
  ['200 allow as a form', { contentType: form, body: 'result=allow' }, 'allow'],
  ['200 allow without content-type', { contentType: undefined, body: allow }, 'allow'],
  ['204', { status: 204, contentType: undefined }, 'allow'],
  ['200 deny', { body: { result: 'deny' } }, 'deny'],
  ['200 deny as a form', { contentType: form, body: 'result=deny' }, 'deny'],
  ['200 ignore', { body: { result: 'ignore' } }, 'nomatch'],
  ['200 with an unknown result', { body: { result: 'x' } }, 'nomatch'],
  ['200 with an empty object', { body: {} }, 'nomatch'],
  ['200 with a list', { body: [] }, 'nomatch'],
  ['200 with a JSON text', { body: '"allow"' }, 'nomatch'],
  ['200 ALLOW', { body: { result: 'ALLOW' } }, 'nomatch'],
  ['200 with result true', { body: { result: true } }, 'nomatch'],
  ['200 with an empty body', { body: '' }, 'nomatch'],
  ['200 with broken JSON', { body: '{"result":' }, 'nomatch'],
  ['200 text/plain', { contentType: 'text/plain', body: allow }, 'nomatch'],
  ['200 Application/JSON', { contentType: 'Application/JSON', body: allow }, 'nomatch'],
  ...[201, 302, 400, 401, 403, 404, 500, 503].map(
    (status) => [`${status} with allow in it`, { status, body: allow }, 'nomatch'] as const,
  ),
  ['403 with deny in it', { status: 403, body: { result: 'deny' } }, 'nomatch'],
  ['a connection closed before the answer', { fault: 'close' }, 'nomatch'],
  ['no answer in time', { fault: 'hang' }, 'nomatch'],
]

describe.each(['deny', 'allow'] as const)('an answer of the source, with no_match = %s', (noMatch) => {
  let broker: TestBroker
  let service: MqttClient
  let device: MqttClient
  const delivered: string[] = []
  beforeAll(async () => {
    broker = await TestBroker.start({
      EMQX_AUTHORIZATION__NO_MATCH: noMatch,
      EMQX_AUTHORIZATION__DENY_ACTION: 'ignore',
      EMQX_AUTHORIZATION__CACHE__ENABLE: 'false',
      EMQX_AUTHORIZATION__SOURCES__1__REQUEST_TIMEOUT: '100ms',
    })
    // The one that watches is a superuser: no authz request is made for it.
    broker.hooks.authn = ({ body }) => ({ body: { ...allow, is_superuser: body.zone === 'services' } })
    service = await broker.connectService(await broker.authority.leaf('watcher'), { clientId: 'watcher' })
    service.on('message', (_topic, payload) => delivered.push(payload.toString()))
    await service.subscribeAsync('#', { qos: 1 })
    device = await broker.connect(await broker.authority.leaf('d1'), { clientId: 'd1' })
  })
  afterAll(() => broker.stop())

  test.each(answers)('%s', async (what, answer, verdict) => {
    const allowed = verdict === 'allow' || (verdict === 'nomatch' && noMatch === 'allow')
    broker.hooks.authz = answer
    delivered.length = 0
    // MQTT 3.1.1: a denied publish is acknowledged, and not delivered.
    await device.publishAsync('a/b', what, { qos: 1 })
    const granted = await device.subscribeAsync('c/d', { qos: 1 }).then(
      ([grant]) => grant?.qos,
      () => 128,
    )
    expect(granted).toBe(allowed ? 1 : 128)
    await service.publishAsync('marker', 'marker', { qos: 1 })
    await until(() => delivered.includes('marker'), 'the marker has come')
    expect(delivered).toEqual(allowed ? [what, 'marker'] : ['marker'])
    await device.unsubscribeAsync('c/d')
  })
})

describe('the request of the source', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await TestBroker.start({
      EMQX_AUTHORIZATION__CACHE__MAX_SIZE: '4',
      EMQX_AUTHORIZATION__CACHE__TTL: '1s',
      EMQX_AUTHORIZATION__CACHE__EXCLUDES: '["nc/#"]',
    })
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  const connect = async (): Promise<MqttClient> =>
    broker.connect(await broker.authority.leaf('d1.device.ares4.internal'), { clientId: 'd1' })
  const asked = () => broker.hooks.requestsTo('/mqtt/authz').map(({ body }) => body)

  test('has every value as a text', async () => {
    const client = await connect()
    await client.publishAsync('a/b', 'x', { qos: 1, retain: true })
    expect(asked()).toEqual([
      {
        clientid: 'd1',
        username: 'd1.device.ares4.internal',
        peerhost: '127.0.0.1',
        cert_common_name: 'd1.device.ares4.internal',
        topic: 'a/b',
        action: 'publish',
        qos: '1',
        retain: 'true',
      },
    ])
  })

  test.each([
    ['$share/g/t/+', 't/+'],
    ['$queue/t/1', 't/1'],
    ['a/#', 'a/#'],
  ])('asks for a subscription to %s as %s', async (filter, topic) => {
    const client = await connect()
    await client.subscribeAsync(filter, { qos: 2 })
    expect(asked()).toMatchObject([{ action: 'subscribe', topic, qos: '2', retain: 'false' }])
  })

  test('is made once for an action, QoS, retain flag and topic of a connection', async () => {
    const client = await connect()
    for (let i = 0; i < 3; i++) await client.publishAsync('a/b', 'x', { qos: 1 })
    await client.publishAsync('a/b', 'x', { qos: 1, retain: true })
    expect(asked()).toHaveLength(2)
  })

  test('is made again when the answer is older than ttl, use does not prolong it', async () => {
    const client = await connect()
    const started = Date.now()
    while (Date.now() - started < 1500) {
      await client.publishAsync('a/b', 'x', { qos: 1 })
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(asked()).toHaveLength(2)
  })

  test('is made again for the oldest topic beyond max_size, and always for an excluded one', async () => {
    const client = await connect()
    for (const topic of ['t/1', 't/2', 't/3', 't/4', 't/5']) await client.publishAsync(topic, 'x', { qos: 1 })
    await client.publishAsync('t/5', 'x', { qos: 1 })
    expect(asked()).toHaveLength(5)
    await client.publishAsync('t/1', 'x', { qos: 1 })
    expect(asked()).toHaveLength(6)
    await client.publishAsync('nc/1', 'x', { qos: 1 })
    await client.publishAsync('nc/1', 'x', { qos: 1 })
    expect(asked()).toHaveLength(8)
  })

  test('of one connection goes out after the one before it, in the order of the publishes', async () => {
    broker.hooks.authz = { body: allow, delayMs: 30 }
    const client = await connect()
    await Promise.all(['p/1', 'p/2', 'p/3'].map((topic) => client.publishAsync(topic, 'x', { qos: 1 })))
    const times = broker.hooks.requestsTo('/mqtt/authz').map(({ at }) => at)
    expect(asked().map(({ topic }) => topic)).toEqual(['p/1', 'p/2', 'p/3'])
    expect((times[2] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(50)
  })
})

describe('a denied action under deny_action = disconnect', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await TestBroker.start()
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  test.each([0, 1, 2] as const)('closes the connection of a publisher, QoS %d', async (qos) => {
    broker.hooks.authz = { body: { result: 'deny' } }
    const client = await broker.connect(await broker.authority.leaf('d1'), { clientId: 'd1' })
    let closed = false
    client.once('close', () => {
      closed = true
    })
    client.publish('a/b', 'x', { qos })
    await until(() => closed, 'the socket is closed')
  })

  test('closes the connection of a subscriber, without a SUBACK', async () => {
    broker.hooks.authz = { body: { result: 'deny' } }
    const client = await broker.connect(await broker.authority.leaf('d1'), { clientId: 'd1' })
    let closed = false
    client.once('close', () => {
      closed = true
    })
    let granted = false
    client.subscribe('a/b', { qos: 1 }, (error) => {
      granted = !error
    })
    await until(() => closed, 'the socket is closed')
    expect(granted).toBe(false)
  })

  test('drops a will when it is published, not at CONNECT', async () => {
    const client = await broker.connect(await broker.authority.leaf('d1'), {
      clientId: 'd1',
      will: { topic: 'not/mine', payload: Buffer.from('gone'), qos: 1, retain: true },
    })
    expect(broker.hooks.requestsTo('/mqtt/authz')).toEqual([])
    broker.hooks.authz = { body: { result: 'deny' } }
    client.stream.destroy()
    await until(
      () => broker.logged.some(({ message }) => message === 'last_will_testament_publish_denied'),
      'the denial is logged',
    )
    expect(broker.hooks.requestsTo('/mqtt/authz')[0]?.body.topic).toBe('not/mine')
  })
})
