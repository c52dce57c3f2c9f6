import { type TestLeaf, until } from '@ares/chassis/testing'
import type { MqttClient } from 'mqtt'
import { TestBroker } from '../testing/test-broker'

const SHARED = '$share/ares4-listeners/ares4/+/telemetry'

describe('sessions', () => {
  let broker: TestBroker
  let identity: TestLeaf
  let device: MqttClient
  beforeAll(async () => {
    broker = await TestBroker.start({
      EMQX_ZONES__SERVICES__MQTT__SESSION_EXPIRY_INTERVAL: '1s',
      EMQX_ZONES__SERVICES__MQTT__MAX_INFLIGHT: '10',
      EMQX_ZONES__SERVICES__MQTT__MAX_MQUEUE_LEN: '50',
      EMQX_ZONES__DEVICES__MQTT__MAX_MQUEUE_LEN: '5',
      EMQX_LISTENERS__SSL__DEVICES__MESSAGES_RATE: 'infinity',
    })
    identity = await broker.authority.leaf('d1')
  })
  beforeEach(async () => {
    device = await broker.connect(identity, { clientId: 'publisher' })
  })
  afterEach(async () => {
    await broker.reset()
    for (const id of ['a', 'b', 'c', 'phone']) await broker.manage('DELETE', `/clients/${id}`)
  })
  afterAll(() => broker.stop())

  /** A subscriber; `holds` keeps its acknowledgements back. */
  const member = async (clientId: string, o: { clean?: boolean; holds?: boolean } = {}) => {
    const got: { text: string; dup: boolean }[] = []
    const client = await broker.connectService(identity, { clientId, clean: o.clean ?? false })
    client.handleMessage = (packet, done) => {
      got.push({ text: String(packet.payload), dup: packet.dup })
      if (!o.holds) done()
    }
    return { client, got }
  }
  const send = async (count: number, prefix = 'm') => {
    for (let i = 0; i < count; i++) await device.publishAsync('ares4/x/telemetry', `${prefix}${i}`, { qos: 1 })
  }
  const queueOf = async (id: string) =>
    (await broker.manage('GET', `/clients/${id}`)).body as {
      mqueue_len: number
      inflight_cnt: number
      mqueue_dropped: number
    }

  test('two members of a shared subscription have half of the messages each', async () => {
    const [a, b] = [await member('a'), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    await send(100)
    await until(() => a.got.length + b.got.length === 100, 'all have come')
    expect([a.got.length, b.got.length]).toEqual([50, 50])
    expect(new Set([...a.got, ...b.got].map(({ text }) => text)).size).toBe(100)
  })

  test('a dead member goes on being given its share, and has it when it returns', async () => {
    const [a, b] = [await member('a'), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    a.client.stream.destroy()
    await until(() => !a.client.connected, 'a is gone')
    await send(20)
    await until(() => b.got.length === 10, 'b has its half')
    expect((await queueOf('a')).mqueue_len).toBe(10)
    const back = await member('a')
    await until(() => back.got.length === 10, 'a has its half')
    expect(b.got).toHaveLength(10)
  })

  test('when the session of a dead member ends, the others get what it held, once and without DUP', async () => {
    const [a, b] = [await member('a', { holds: true }), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    await send(20)
    await until(() => b.got.length === 10 && a.got.length > 0, 'both have messages')
    a.client.stream.destroy()
    await until(() => b.got.length === 20, 'b has all', 5_000)
    expect(b.got.some(({ dup }) => dup)).toBe(false)
    expect(new Set(b.got.map(({ text }) => text)).size).toBe(20)
  })

  test('a member without a persistent session hands over at once', async () => {
    const [a, b] = [await member('a', { clean: true, holds: true }), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    await send(20)
    a.client.stream.destroy()
    await until(() => b.got.length === 20, 'b has all', 500)
  })

  test('a kicked member takes what it held with it', async () => {
    const [a, b] = [await member('a', { holds: true }), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    await send(20)
    await broker.manage('DELETE', '/clients/a')
    await send(2, 'after')
    await until(() => b.got.length === 12, 'b has its own and the new ones')
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(b.got).toHaveLength(12)
  })

  test('a member that leaves its group is given no more', async () => {
    const [a, b] = [await member('a'), await member('b')]
    for (const { client } of [a, b]) await client.subscribeAsync(SHARED, { qos: 1 })
    await a.client.unsubscribeAsync(SHARED)
    await send(10)
    await until(() => b.got.length === 10, 'b has all')
    expect(a.got).toEqual([])
  })

  test('a member that never acknowledges has max_inflight on the wire, the newest in its queue, the rest dropped', async () => {
    const { client } = await member('a', { holds: true })
    await client.subscribeAsync(SHARED, { qos: 1 })
    await send(100)
    expect(await queueOf('a')).toMatchObject({ inflight_cnt: 10, mqueue_len: 50, mqueue_dropped: 40 })
    expect(broker.logged.some(({ message }) => message === 'dropped_msg_due_to_mqueue_is_full')).toBe(true)
  })

  test('what was not acknowledged comes again with DUP after a reconnect, in order', async () => {
    const first = await member('a', { holds: true })
    await first.client.subscribeAsync('ares4/+/telemetry', { qos: 1 })
    await send(15)
    first.client.stream.destroy()
    await until(() => !first.client.connected, 'it is gone')
    const again = await member('a')
    await until(() => again.got.length === 15, 'all have come')
    expect(again.got.map(({ text }) => text)).toEqual(Array.from({ length: 15 }, (_, i) => `m${i}`))
    expect(again.got.slice(0, 10).every(({ dup }) => dup)).toBe(true)
    expect(again.got.slice(10).some(({ dup }) => dup)).toBe(false)
  })

  test('the CONNACK says whether there was a session', async () => {
    const seen: boolean[] = []
    for (const clean of [false, false, true, false]) {
      let sessionPresent: boolean | undefined
      const client = await broker.connectService(identity, { clientId: 'c', clean }, (present) => {
        sessionPresent = present
      })
      seen.push(sessionPresent === true)
      await client.endAsync()
    }
    expect(seen).toEqual([false, true, false, false])
  })

  test('a second connection with the same client id closes the first and takes its session', async () => {
    const first = await member('a')
    await first.client.subscribeAsync('ares4/+/telemetry', { qos: 1 })
    let closed = false
    first.client.once('close', () => {
      closed = true
    })
    const second = await member('a')
    await until(() => closed, 'the first is closed')
    await send(3)
    await until(() => second.got.length === 3, 'the second has the messages')
    expect(first.got).toEqual([])
  })

  test('a full queue of a device drops the oldest', async () => {
    const phone = await broker.connect(identity, { clientId: 'phone', clean: false })
    await phone.subscribeAsync('ares4/phone/commands/+', { qos: 1 })
    await phone.endAsync()
    for (let i = 0; i < 8; i++) await device.publishAsync('ares4/phone/commands/1', `c${i}`, { qos: 1 })
    const got: string[] = []
    const again = await broker.connect(identity, { clientId: 'phone', clean: false })
    again.on('message', (_topic, payload) => got.push(String(payload)))
    await until(() => got.length === 5, 'the queue has come')
    expect(got).toEqual(['c3', 'c4', 'c5', 'c6', 'c7'])
  })

  test('retained messages come with a subscription, not with a resumed session, until an empty one removes them', async () => {
    await device.publishAsync('ares4/x/status', 'online', { qos: 1, retain: true })
    const { client, got } = await member('a')
    await client.subscribeAsync('ares4/+/status', { qos: 1 })
    await until(() => got.length === 1, 'it has come')
    await client.endAsync()
    const again = await member('a')
    await device.publishAsync('ares4/x/status', '', { qos: 1, retain: true })
    await until(() => again.got.length === 1, 'the removal has come')
    expect(again.got[0]?.text).toBe('')
    const { client: late, got: lateGot } = await member('b')
    await late.subscribeAsync('ares4/+/status', { qos: 1 })
    await device.publishAsync('ares4/x/status', 'now', { qos: 1 })
    await until(() => lateGot.length === 1, 'only the live one has come')
    expect(lateGot[0]?.text).toBe('now')
  })

  test('a will is published when the connection breaks, and not after a DISCONNECT', async () => {
    const { client, got } = await member('a')
    await client.subscribeAsync('ares4/+/status', { qos: 1 })
    const will = { topic: 'ares4/w/status', payload: Buffer.from('offline'), qos: 1 as const, retain: false }
    const polite = await broker.connect(identity, { clientId: 'w', will })
    await polite.endAsync()
    const cut = await broker.connect(identity, { clientId: 'w', will })
    cut.stream.destroy()
    await until(() => got.length === 1, 'one will has come')
    expect(got[0]?.text).toBe('offline')
  })

  test.each([0, 1, 2] as const)('QoS %d reaches a subscriber exactly once', async (qos) => {
    const { client, got } = await member('a')
    await client.subscribeAsync('ares4/+/telemetry', { qos: 2 })
    for (let i = 0; i < 30; i++) await device.publishAsync('ares4/x/telemetry', `q${i}`, { qos })
    await until(() => got.length === 30, 'all have come')
    expect(got.map(({ text }) => text)).toEqual(Array.from({ length: 30 }, (_, i) => `q${i}`))
    const drained = async () => (await queueOf('a')).inflight_cnt === 0
    for (let i = 0; i < 100 && !(await drained()); i++) await new Promise((resolve) => setTimeout(resolve, 10))
    expect(await drained()).toBe(true)
  })
})
