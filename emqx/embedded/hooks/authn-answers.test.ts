import { type TestLeaf, until } from '@ares/chassis/testing'
import type { MqttClient } from 'mqtt'
import type { HookAnswer } from '../testing/hook-server'
import { TestBroker } from '../testing/test-broker'

/** The measured table of EMQX 5.8.9: answer of the HTTP authenticator → code of the CONNACK (MQTT 3.1.1). */
const ALLOWED = 0
const NOT_AUTHORIZED = 5
const BAD_PASSWORD = 4

const inTwoSeconds = () => Math.floor(Date.now() / 1000) + 2
const allow = { result: 'allow' }
const answers: ReadonlyArray<readonly [what: string, answer: HookAnswer, code: number]> = [
  ['200 allow', { body: allow }, ALLOWED],
  ['204', { status: 204, contentType: undefined }, ALLOWED],
  ['200 allow with charset', { contentType: 'application/json; charset=utf-8', body: allow }, ALLOWED],
  ['200 allow as a form', { contentType: 'application/x-www-form-urlencoded', body: 'result=allow' }, ALLOWED],
  ['200 deny', { body: { result: 'deny' } }, NOT_AUTHORIZED],
  ['200 deny as a form', { contentType: 'application/x-www-form-urlencoded', body: 'result=deny' }, NOT_AUTHORIZED],
  ['200 ignore', { body: { result: 'ignore' } }, NOT_AUTHORIZED],
  ['200 with an unknown result', { body: { result: 'bogus' } }, NOT_AUTHORIZED],
  ['200 ALLOW', { body: { result: 'ALLOW' } }, NOT_AUTHORIZED],
  ['200 with result true', { body: { result: true } }, NOT_AUTHORIZED],
  ['200 with an empty object', { body: {} }, NOT_AUTHORIZED],
  ['200 superuser without result', { body: { is_superuser: true } }, NOT_AUTHORIZED],
  ['200 with a JSON text', { body: '"allow"' }, NOT_AUTHORIZED],
  ['200 with a JSON list', { body: [] }, NOT_AUTHORIZED],
  ['200 with an empty body', { body: '' }, NOT_AUTHORIZED],
  ['200 with broken JSON', { body: '{"result":"allow"' }, NOT_AUTHORIZED],
  ['200 text/plain', { contentType: 'text/plain', body: allow }, NOT_AUTHORIZED],
  ['200 without content-type', { contentType: undefined, body: allow }, NOT_AUTHORIZED],
  ['200 Application/JSON', { contentType: 'Application/JSON', body: allow }, NOT_AUTHORIZED],
  ...[201, 302, 400, 401, 403, 404, 500, 503].map(
    (status) => [`${status} with allow in it`, { status, body: allow }, NOT_AUTHORIZED] as const,
  ),
  ['a connection closed before the answer', { fault: 'close' }, NOT_AUTHORIZED],
  ['an answer with an acl that is an object', { body: { ...allow, acl: { pub: [], sub: [] } } }, NOT_AUTHORIZED],
  ['an answer with an acl that is a text', { body: { ...allow, acl: 'all' } }, NOT_AUTHORIZED],
  ['an empty acl', { body: { ...allow, acl: [] } }, ALLOWED],
  [
    'a rule with an unknown permission',
    { body: { ...allow, acl: [{ permission: 'x', action: 'all', topic: '#' }] } },
    BAD_PASSWORD,
  ],
  ['a rule without topic', { body: { ...allow, acl: [{ permission: 'allow', action: 'all' }] } }, BAD_PASSWORD],
  ['expire_at in the past', { body: { ...allow, expire_at: 1_000_000 } }, BAD_PASSWORD],
  ['expire_at in milliseconds', { body: { ...allow, expire_at: Date.now() + 60_000 } }, BAD_PASSWORD],
  ['expire_at as a text', { body: { ...allow, expire_at: String(inTwoSeconds()) } }, BAD_PASSWORD],
  ['expire_at null', { body: { ...allow, expire_at: null } }, BAD_PASSWORD],
  ['client_attrs with a number', { body: { ...allow, client_attrs: { a: 1 } } }, NOT_AUTHORIZED],
  ['client_attrs of texts', { body: { ...allow, client_attrs: { a: 'x' } } }, ALLOWED],
]

describe('an answer of the authenticator', () => {
  let broker: TestBroker
  let device: TestLeaf
  beforeAll(async () => {
    broker = await TestBroker.start({
      EMQX_AUTHENTICATION__1__REQUEST_TIMEOUT: '300ms',
      EMQX_LISTENERS__SSL__DEVICES__MAX_CONN_RATE: 'infinity',
    })
    device = await broker.authority.leaf('d1.device.ares4.internal')
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  const connack = (answer: HookAnswer): Promise<number> => {
    broker.hooks.authn = answer
    return broker.connect(device, { clientId: 'd1' }).then(
      () => 0,
      (error: Error & { code?: number }) => error.code ?? -1,
    )
  }

  test.each(answers)('%s', async (_what, answer, code) => {
    expect(await connack(answer)).toBe(code)
  })

  test('that does not come is given up half a second after request_timeout, after one request', async () => {
    const started = Date.now()
    expect(await connack({ fault: 'hang' })).toBe(NOT_AUTHORIZED)
    expect(Date.now() - started).toBeGreaterThanOrEqual(790)
    expect(broker.hooks.requests).toHaveLength(1)
  })

  test('that is cut off is asked for three times', async () => {
    expect(await connack({ fault: 'close' })).toBe(NOT_AUTHORIZED)
    expect(broker.hooks.requests).toHaveLength(3)
  })

  const nothing = [{ permission: 'deny', action: 'all', topic: '#' }]
  test.each([
    [true, true],
    ['true', true],
    [1, true],
    ['1', true],
    [false, false],
    ['false', false],
    [0, false],
    [null, false],
    ['yes', false],
    [undefined, false],
  ])('with is_superuser %p: superuser is %p, even against a deny rule', async (is_superuser, superuser) => {
    broker.hooks.authn = { body: { ...allow, is_superuser, acl: nothing } }
    const client = await broker.connect(device, { clientId: 'd1' })
    const outcome = await publishOutcome(client, 'any/topic')
    expect(outcome).toBe(superuser ? 'acknowledged' : 'closed')
    expect(broker.hooks.requestsTo('/mqtt/authz')).toEqual([])
  })

  test('with expire_at disconnects the client at that time', async () => {
    const expireAt = inTwoSeconds()
    broker.hooks.authn = { body: { ...allow, expire_at: expireAt } }
    const client = await broker.connect(device, { clientId: 'd1' })
    let closedAt = 0
    client.once('close', () => {
      closedAt = Date.now()
    })
    await until(() => closedAt > 0, 'the client is disconnected')
    expect(closedAt).toBeGreaterThanOrEqual(expireAt * 1000 - 5)
  })

  test('sends known placeholders without a value as empty texts', async () => {
    expect(await connack({ body: allow })).toBe(ALLOWED)
    expect(broker.hooks.requests[0]?.body).toMatchObject({ username: 'd1.device.ares4.internal', password: '' })
  })

  test('is not asked for when the password is not UTF-8', async () => {
    const connecting = broker.connect(device, { clientId: 'd1', username: 'u', password: Buffer.from([0xff, 0xfe]) })
    await expect(connecting).rejects.toMatchObject({ code: NOT_AUTHORIZED })
    expect(broker.hooks.requests).toEqual([])
  })
})

describe('a storm', () => {
  test('is asked for on at most pool_size connections, one request at a time on each', async () => {
    // Broker, authorizer and forty clients shake hands in this one process: on a busy machine that takes its time.
    const broker = await TestBroker.start({
      EMQX_AUTHENTICATION__1__CONNECT_TIMEOUT: '20s',
      EMQX_AUTHENTICATION__1__REQUEST_TIMEOUT: '20s',
    })
    try {
      const device = await broker.authority.leaf('d1.device.ares4.internal')
      broker.hooks.authn = { body: allow, delayMs: 20 }
      const before = broker.hooks.openedConnections
      await Promise.all(Array.from({ length: 40 }, (_, i) => broker.connect(device, { clientId: `d${i}` })))
      expect(broker.hooks.openedConnections - before).toBeLessThanOrEqual(32)
      expect(broker.hooks.requests).toHaveLength(40)
    } finally {
      await broker.stop()
    }
  })
})

describe('without an authorizer', () => {
  test('nobody comes in, at once', async () => {
    const broker = await TestBroker.start()
    await broker.hooks.stop()
    const device = await broker.authority.leaf('d1.device.ares4.internal')
    await expect(broker.connect(device, { clientId: 'd1' })).rejects.toMatchObject({ code: NOT_AUTHORIZED })
    await broker.stop()
  })
})

/** Under deny_action = disconnect a refused publish closes the connection. */
export async function publishOutcome(client: MqttClient, topic: string): Promise<'acknowledged' | 'closed'> {
  return new Promise((resolve) => {
    client.once('close', () => resolve('closed'))
    client.publish(topic, 'x', { qos: 1 }, (error) => {
      if (!error) resolve('acknowledged')
    })
  })
}
