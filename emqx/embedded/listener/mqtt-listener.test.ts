import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as tls from 'node:tls'
import { TestAuthority, type TestLeaf, until } from '@ares/chassis/testing'
import type { MqttClient } from 'mqtt'
import { TestBroker } from '../testing/test-broker'

describe('the TLS listener of the devices', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await TestBroker.start()
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  const refused = async (identity: TestLeaf | undefined) => {
    await expect(broker.connect(identity, { clientId: 'd1' })).rejects.toThrow()
    expect(broker.hooks.requests).toEqual([])
  }

  test('refuses a client without a certificate, before the authorizer is asked', () => refused(undefined))

  test('refuses a certificate of another CA with the same name', async () => {
    const other = await TestAuthority.create()
    await refused(await other.leaf('d1.device.ares4.internal'))
  })

  test('refuses an expired certificate', async () => {
    await refused(await broker.authority.leaf('d1', { notAfter: new Date(Date.now() - 1000) }))
  })

  test('refuses a certificate that is for servers only', async () => {
    await refused(await broker.authority.leaf('d1', { client: false }))
  })

  test('keeps the name that the client sends when its certificate has no CN', async () => {
    await broker.connect(await broker.authority.leaf('', { subject: 'O=Acme' }), {
      clientId: 'd1',
      username: 'claimed',
    })
    expect(broker.hooks.requests[0]?.body).toMatchObject({ username: 'claimed', cert_common_name: '' })
  })

  test('joins two CNs with a comma', async () => {
    await broker.connect(await broker.authority.leaf('', { subject: 'CN=first, CN=second' }), { clientId: 'd1' })
    expect(broker.hooks.requests[0]?.body.cert_common_name).toBe('first,second')
  })

  test('refuses MQTT 5 with code 1, which aedes does not speak', async () => {
    const identity = await broker.authority.leaf('d1')
    await expect(broker.connect(identity, { clientId: 'd1', protocolVersion: 5 })).rejects.toMatchObject({ code: 1 })
  })

  test('refuses a client id that is longer than max_clientid_len', async () => {
    const identity = await broker.authority.leaf('d1')
    await expect(broker.connect(identity, { clientId: 'x'.repeat(129) })).rejects.toMatchObject({ code: 2 })
  })

  test('lets users in over wss without a certificate, under the name they send', async () => {
    await broker.connectUser({ clientId: 'u1', username: 'a@b.c', password: 'token' })
    expect(broker.hooks.requests[0]?.body).toMatchObject({
      username: 'a@b.c',
      password: 'token',
      cert_pem: '',
      zone: 'users',
    })
  })

  test('closes what comes faster than max_conn_rate, before TLS', async () => {
    const limited = await TestBroker.start({ EMQX_LISTENERS__SSL__DEVICES__MAX_CONN_RATE: '4/s' })
    const identity = await limited.authority.leaf('d1')
    const outcomes = await Promise.allSettled(
      Array.from({ length: 12 }, (_, i) => limited.connect(identity, { clientId: `d${i}` })),
    )
    const admitted = outcomes.filter(({ status }) => status === 'fulfilled').length
    expect(admitted).toBeGreaterThanOrEqual(1)
    expect(admitted).toBeLessThan(6)
    await limited.stop()
  })
})

describe("the broker's certificate", () => {
  test('is taken up when its files are replaced, connections stay; a key that does not fit changes nothing', async () => {
    const broker = await TestBroker.start()
    const device = await broker.connect(await broker.authority.leaf('d1'), { clientId: 'd1' })
    const shown = await fingerprint(broker)
    const renewed = await broker.authority.leaf('broker.ares4.internal')

    replace(join(broker.folder, 'emqx.key'), renewed.keyPem)
    await until(
      () => broker.logged.some(({ message }) => String(message).includes('not usable yet')),
      'it was looked at',
    )
    expect(await fingerprint(broker)).toBe(shown)

    replace(join(broker.folder, 'emqx.crt'), renewed.chainPem)
    await until(
      () => broker.logged.filter(({ message }) => message === 'certificate files taken up').length === 3,
      'all listeners have it',
    )
    expect(await fingerprint(broker)).not.toBe(shown)
    expect(device.connected).toBe(true)
    await device.publishAsync('a/b', 'x', { qos: 1 })
    // The webhooks show it as well, and were never without a usable one.
    await broker.connect(await broker.authority.leaf('d2'), { clientId: 'd2' })
    await broker.stop()
  })
})

describe('the rate of the devices', () => {
  let broker: TestBroker
  const devices: MqttClient[] = []
  let acknowledged = 0
  beforeAll(async () => {
    broker = await TestBroker.start({
      EMQX_LISTENERS__SSL__DEVICES__LIMITER__MESSAGES__RATE: '200/s',
      EMQX_LISTENERS__SSL__DEVICES__MESSAGES_RATE: 'infinity',
    })
  })
  afterAll(() => broker.stop())

  const flood = (client: MqttClient) => {
    const next = () =>
      client.publish('a/b', 'x', { qos: 1 }, (error) => {
        if (error) return
        acknowledged++
        next()
      })
    for (let i = 0; i < 8; i++) next()
  }
  const rateOver = async (ms: number) => {
    const [count, started] = [acknowledged, Date.now()]
    await new Promise((resolve) => setTimeout(resolve, ms))
    return ((acknowledged - count) * 1000) / (Date.now() - started)
  }

  test('is held by the bucket of the listener, which the management API turns while they are connected', async () => {
    for (let i = 0; i < 4; i++) {
      const client = await broker.connect(await broker.authority.leaf(`d${i}`), { clientId: `d${i}` })
      devices.push(client)
      flood(client)
    }
    const slow = await rateOver(2000)
    expect(slow).toBeGreaterThan(80)
    expect(slow).toBeLessThan(260)

    const { body } = await broker.manage('GET', '/listeners/ssl:devices')
    expect(body).toMatchObject({ id: 'ssl:devices', limiter: { messages: { rate: '200/s' } } })
    const { status, node_status, running, ...settings } = body as Record<string, unknown>
    const changed = { ...settings, limiter: { messages: { rate: '20/s' } } }
    expect((await broker.manage('PUT', '/listeners/ssl:devices', changed)).status).toBe(200)
    await rateOver(500)
    expect(await rateOver(2000)).toBeLessThan(40)

    await broker.manage('PUT', '/listeners/ssl:devices', { ...settings, limiter: { messages: { rate: '400/s' } } })
    await rateOver(500)
    expect(await rateOver(1000)).toBeGreaterThan(100)
    expect(devices.every((client) => client.connected)).toBe(true)
    expect([status, node_status, running]).toBeDefined()
  })

  test('is refused by the management API when it is none', async () => {
    const answer = await broker.manage('PUT', '/listeners/ssl:devices', { limiter: { messages: { rate: 'fast' } } })
    expect(answer.status).toBe(400)
  })

  test('of one device is messages_rate: a burst is served in time, nothing of it is lost', async () => {
    const limited = await TestBroker.start({ EMQX_LISTENERS__SSL__DEVICES__MESSAGES_RATE: '20/s' })
    const client = await limited.connect(await limited.authority.leaf('d1'), { clientId: 'd1' })
    const started = Date.now()
    await Promise.all(Array.from({ length: 30 }, () => client.publishAsync('a/b', 'x', { qos: 1 })))
    expect(Date.now() - started).toBeGreaterThan(1000)
    await limited.stop()
  })
})

function replace(file: string, content: string): void {
  writeFileSync(`${file}.new`, content)
  renameSync(`${file}.new`, file)
}

async function fingerprint(broker: TestBroker): Promise<string> {
  const socket = tls.connect({ port: broker.broker.ports.users, host: '127.0.0.1', rejectUnauthorized: false })
  await new Promise<void>((resolve) => socket.once('secureConnect', () => resolve()))
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256
}
