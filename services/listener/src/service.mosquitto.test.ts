import { createGrpcClient, unary } from '@ares/chassis'
import { TestAuthority, until } from '@ares/chassis/testing'
import { topics } from '@ares/proto'
import { CommandDeliveryServiceClient } from '@ares/proto/commands/v1/commands'
import { Report, Result } from '@ares/proto/telemetry/v1/telemetry'
import type { MqttClient } from 'mqtt'
import { CountingProxy } from './testing/counting-proxy'
import { ListenerBench, report } from './testing/listener-bench'
import { Mosquitto } from './testing/mosquitto'
import { commitAll, refuseBatchesWith } from './testing/test-api'

/** MQTT 5, real shared subscriptions, mTLS: against a mosquitto of the system's packages. */
let ca: TestAuthority
let broker: Mosquitto
let bench: ListenerBench
let deviceUrl: string
let url: string
let deviceTls: { ca: string; cert: string; key: string }

beforeAll(async () => {
  ca = await TestAuthority.create()
  broker = await Mosquitto.start(await ca.leaf('broker.ares4.internal'))
  url = `mqtts://localhost:${broker.port}`
  deviceUrl = url
  const leaf = await ca.leaf('d1.device.ares4.internal')
  deviceTls = { ca: leaf.caPem, cert: leaf.chainPem, key: leaf.keyPem }
})

afterAll(() => broker.stop())

beforeEach(async () => {
  bench = await ListenerBench.create(ca)
})

afterEach(() => bench.close())

const device = (): Promise<MqttClient> => bench.device(deviceUrl, deviceTls)
const sequences = (): number[] => bench.api.payloads.map((payload) => JSON.parse(payload).sequence)
const numbers = (count: number, from = 0): number[] => Array.from({ length: count }, (_, index) => from + index)
const publishAll = (client: MqttClient, count: number, from = 0) =>
  Promise.all(
    numbers(count, from).map((sequence) => client.publishAsync(topics.telemetry('d1'), report(sequence), { qos: 1 })),
  )

it('brings reports to api in one batch, decoded and with their bytes, and acknowledges them', async () => {
  const { context } = await bench.listener(url)
  await publishAll(await device(), 100)
  await until(() => bench.api.committed.length === 100, 'all are committed')
  expect(sequences()).toEqual(numbers(100))
  expect(bench.api.calls.length).toBeLessThan(50)
  expect(bench.api.calls[0]).toMatchObject({ listener: 'ares4-mqtt-listener-0000000a' })
  expect(bench.api.committed[7]).toMatchObject({
    deviceId: 'd1',
    topic: '',
    content: { $case: 'report', value: { sequence: 7n } },
  })
  await until(
    async () => (await context.metrics.metrics()).includes('ares_listener_held_messages{service="listener"} 0'),
    'nothing is held',
  )
})

it('acknowledges nothing before the commit: what is not committed comes to the next session', async () => {
  bench.api.answer = () => new Promise(() => undefined)
  const first = await bench.listener(url, { leaveGroup: false })
  await publishAll(await device(), 50)
  await until(() => bench.api.calls.length > 0, 'they came to api')
  await Promise.all([bench.services.pop()!.stop(), first])
  expect(bench.api.committed).toHaveLength(0)
  bench.api.answer = commitAll
  await bench.listener(url)
  await until(() => new Set(sequences()).size === 50, 'all are committed by the next one')
})

it('loses nothing while api is away, and acknowledges nothing then', async () => {
  const { context } = await bench.listener(url)
  const client = await device()
  await bench.api.stop()
  await publishAll(client, 200)
  const state = () => context.health.report().then((health) => health.checks.ingest)
  await until(async () => (await state())?.ok === false, 'health says that api is away')
  expect((await state())?.detail).toContain('api has not committed')
  await bench.api.start(bench.apiPort)
  await until(() => new Set(sequences()).size === 200, 'all are committed after its return', 15_000)
  await until(async () => (await state())?.ok === true, 'health is well again')
})

it('reconnects through MQTT.js alone after a cut, loses nothing, and connects once a time', async () => {
  const proxy = await CountingProxy.start(broker.port)
  const { isUp } = await bench.listener(`mqtts://localhost:${proxy.port}`)
  expect(proxy.connections).toBe(1)
  const client = await device()
  let release: () => void = () => undefined
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  bench.api.answer = async (request) => {
    await held
    return commitAll(request)
  }
  await publishAll(client, 20)
  await until(() => bench.api.calls.length > 0, 'they came to api')
  proxy.cut()
  await until(() => proxy.connections === 2, 'it is connected again')
  await until(isUp, 'it is subscribed')
  await publishAll(client, 20, 20)
  release()
  await until(() => new Set(sequences()).size === 40, 'all are committed')
  expect(proxy.connections).toBe(2)
  await bench.close()
  await proxy.stop()
})

it('makes a bad message stand alone and go to the dead letters, and the good ones go through', async () => {
  bench.api.answer = refuseBatchesWith(
    ({ content, payload }) => content?.$case === 'report' && payload.includes('"poison"'),
  )
  await bench.listener(url)
  const client = await device()
  await Promise.all(
    numbers(100).map((n) =>
      client.publishAsync(topics.telemetry('d1'), report(n, n === 37 ? { note: 'poison' } : {}), { qos: 1 }),
    ),
  )
  await until(() => bench.api.committed.length === 100, 'all are committed')
  const dead = bench.api.committed.filter((message) => message.content?.$case === 'undecodable')
  expect(dead).toHaveLength(1)
  expect(dead[0]?.content).toMatchObject({ value: { reason: 'rejected_by_store' } })
  expect(JSON.parse(dead[0]!.payload.toString()).sequence).toBe(37)
})

it('reads the format from the content type or from the topic, and keeps what it cannot read', async () => {
  await bench.listener(url)
  const client = await device()
  const value = { value: { $case: 'number' as const, value: 1 } }
  const protobuf = Buffer.from(Report.encode({ component: 'c', metrics: { t: value }, samples: [] }).finish())
  const pack = JSON.stringify([{ n: 'c:t', v: 1 }])
  const topic = topics.telemetry('d1')
  await client.publishAsync(`${topic}/senml`, pack, { qos: 1 })
  await client.publishAsync(`${topic}/protobuf`, protobuf, { qos: 1 })
  await client.publishAsync(topic, pack, { qos: 1, properties: { contentType: 'application/senml+json' } })
  await client.publishAsync(`${topic}/cbor`, pack, { qos: 1 })
  await client.publishAsync(topic, '{"component":', { qos: 1 })
  await client.publishAsync(topic, Buffer.alloc(300_000, 0x20), { qos: 1 })
  await until(() => bench.api.committed.length === 6, 'all are committed')
  const seen = bench.api.committed.map(({ content }) =>
    content?.$case === 'undecodable' ? content.value.reason : content?.$case,
  )
  expect(seen).toEqual(['report', 'report', 'report', 'unsupported_format', 'malformed', 'too_large'])
  expect(bench.api.committed[5]?.payload).toHaveLength(256 * 1024)
})

it('takes statuses and responses the same way, and keeps as dead letters what they do not mean', async () => {
  await bench.listener(url)
  const client = await device()
  await client.publishAsync(topics.status('d1'), '{"status":"online"}', { qos: 1, retain: true })
  await client.publishAsync(topics.status('d1'), 'up!', { qos: 1 })
  await client.publishAsync(topics.status('d1'), '', { qos: 1, retain: true })
  await client.publishAsync(topics.response('d1', 'c1'), '{"status":"succeeded","result":{"a":1}}', { qos: 1 })
  await client.publishAsync(topics.response('d1', 'c1'), '{"status":"maybe"}', { qos: 1 })
  await until(() => bench.api.committed.length === 2 && bench.api.responses.length === 1, 'all are committed')
  expect(bench.api.statuses).toMatchObject([{ deviceId: 'd1', online: true }])
  expect(bench.api.responses).toMatchObject([{ deviceId: 'd1', commandId: 'c1', resultJson: '{"a":1}' }])
  expect(bench.api.committed.map((message) => message.topic)).toEqual([
    topics.status('d1'),
    topics.response('d1', 'c1'),
  ])
})

it('tells devices their receipts and errors after the commit', async () => {
  bench.api.answer = ({ messages }) => ({
    results: messages.map((_, index) => (index === 1 ? Result.RESULT_DEAD_LETTERED : Result.RESULT_COMMITTED)),
    receipts: [{ deviceId: 'd1', sequences: [1n, 9_007_199_254_740_991n] }],
    refusals: [{ index: 1, reason: 'unknown_metric', detail: 'no metric "x"', notifyDevice: true }],
  })
  await bench.listener(url)
  const client = await device()
  const told: Array<[string, string]> = []
  client.on('message', (topic, payload) => told.push([topic, payload.toString()]))
  await client.subscribeAsync(['ares4/d1/receipts', 'ares4/d1/errors'])
  await publishAll(client, 3)
  await until(() => told.length >= 2, 'the device is told')
  expect(told).toContainEqual([topics.receipts('d1'), '{"sequences":[1,9007199254740991]}'])
  expect(told).toContainEqual([
    topics.errors('d1'),
    '{"sequence":1,"reason":"unknown_metric","detail":"no metric "x""}'.replaceAll('"x"', '\\"x\\"'),
  ])
})

it('shares the messages with another listener, and gets all when that one stops', async () => {
  const first = await bench.listener(url, {}, '0000000a')
  await bench.listener(url, {}, '0000000b')
  const client = await device()
  await publishAll(client, 100)
  await until(() => bench.api.committed.length === 100, 'all are committed')
  expect(new Set(bench.api.calls.map((call) => call.listener)).size).toBe(2)
  await first.service.stop()
  await publishAll(client, 100, 100)
  await until(() => new Set(sequences()).size === 200, 'all are committed')
  expect(bench.api.committed).toHaveLength(200)
})

it('commits and acknowledges what it holds before it stops', async () => {
  const { service } = await bench.listener(url)
  const client = await device()
  bench.api.answer = async (request) => {
    await new Promise((resolve) => setTimeout(resolve, 300))
    return commitAll(request)
  }
  await publishAll(client, 30)
  await service.stop()
  expect(new Set(sequences())).toEqual(new Set(numbers(30)))
  await bench.listener(url)
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(bench.api.committed).toHaveLength(30)
})

it('moves to a renewed certificate without losing a message', async () => {
  const proxy = await CountingProxy.start(broker.port)
  const { identity, isUp } = await bench.listener(`mqtts://localhost:${proxy.port}`)
  const client = await device()
  let sent = 0
  const flow = setInterval(() => void client.publishAsync(topics.telemetry('d1'), report(sent++), { qos: 1 }), 2)
  await until(() => bench.api.committed.length > 20, 'messages flow')
  identity.renew(await ca.leaf('listener.service.ares4.internal'))
  await until(() => proxy.connections === 2, 'it is connected again')
  await until(isUp, 'it is subscribed')
  const before = sent
  await until(() => sent > before + 50, 'messages flow')
  clearInterval(flow)
  await until(() => new Set(sequences()).size === sent, 'all are committed')
  expect(proxy.connections).toBe(2)
  await bench.close()
  await proxy.stop()
})

it('publishes commands for api, with their expiry, and says whether a session took them', async () => {
  const { service } = await bench.listener(url)
  const client = createGrpcClient({
    client: CommandDeliveryServiceClient,
    address: `127.0.0.1:${service.ports!.grpc}`,
    identity: await ca.identity('api.service.ares4.internal'),
    serverName: 'listener.service.ares4.internal',
  })
  const expiresAt = new Date(Date.now() + 60_000)
  const command = { deviceId: 'd2', commandId: 'c1', name: 'reboot', argumentsJson: '{"delay":5}', expiresAt }
  const publish = (changes = {}) => unary(client, client.publish, { ...command, ...changes }, { deadlineMs: 2_000 })
  expect(await publish()).toEqual({ taken: false })
  const target = await device()
  const got: unknown[] = []
  target.on('message', (topic, payload, packet) =>
    got.push([topic, JSON.parse(payload.toString()), packet.properties?.messageExpiryInterval]),
  )
  await target.subscribeAsync('ares4/d2/commands/+', { qos: 1 })
  expect(await publish()).toEqual({ taken: true })
  await until(() => got.length === 1, 'the device has it')
  expect(got[0]).toEqual([
    topics.command('d2', 'c1'),
    { name: 'reboot', arguments: { delay: 5 }, expiresAt: expiresAt.toISOString() },
    60,
  ])
  await expect(publish({ expiresAt: new Date(0) })).rejects.toMatchObject({ code: 9 })
  await expect(publish({ argumentsJson: '{' })).rejects.toMatchObject({ code: 3 })
  client.close()
})

describe('a request for a new certificate', () => {
  const expiresAt = new Date('2026-07-01T00:00:00Z')
  const issued = { serial: '0a:0b', certificate: 'leaf', chain: ['intermediate', 'root'], expiresAt }

  /** Asks, and waits for the answer. */
  async function ask(client: MqttClient, payload: string): Promise<unknown> {
    await client.subscribeAsync(topics.certificateResponse('d1'), { qos: 1 })
    const answer = new Promise<string>((resolve) => {
      client.once('message', (_topic, message) => resolve(message.toString()))
    })
    await client.publishAsync(topics.certificateRequest('d1'), payload, { qos: 1 })
    return JSON.parse(await answer)
  }

  it('is brought to api, and the certificate to the device', async () => {
    const requests: object[] = []
    bench.api.renew = async (request) => {
      requests.push(request)
      return { result: { $case: 'certificate', value: issued } }
    }
    const { context } = await bench.listener(url)
    const answer = await ask(await device(), '{"csr":"a CSR"}')
    expect(requests).toEqual([{ deviceId: 'd1', csr: 'a CSR' }])
    expect(answer).toEqual({ ...issued, expiresAt: expiresAt.toISOString() })
    expect(await context.metrics.metrics()).toContain('ares_listener_renewals_total{result="issued"')
  })

  it('gets an error with its code when it is refused, and when api is away', async () => {
    await bench.listener(url)
    const client = await device()
    const refused = { code: 'renewal_too_early', detail: 'not yet', retryAfterSeconds: 60 }
    expect(await ask(client, '{"csr":"a CSR"}')).toEqual({ error: refused })
    bench.api.renew = () => Promise.reject(new Error('broken'))
    expect(await ask(client, '{"csr":"a CSR"}')).toMatchObject({ error: { code: 'unavailable' } })
  })

  it('that nobody can read becomes a dead letter', async () => {
    await bench.listener(url)
    const client = await device()
    await client.publishAsync(topics.certificateRequest('d1'), 'CSR', { qos: 1 })
    await until(() => bench.api.committed.length === 1, 'it is committed')
    expect(bench.api.committed[0]).toMatchObject({ deviceId: 'd1', content: { value: { reason: 'malformed' } } })
  })

  it('does not keep telemetry waiting while Vault is slow', async () => {
    bench.api.renew = () => new Promise(() => undefined)
    const { context } = await bench.listener(url)
    const client = await device()
    await client.publishAsync(topics.certificateRequest('d1'), '{"csr":"a CSR"}', { qos: 1 })
    await publishAll(client, 10)
    await until(() => bench.api.committed.length === 10, 'the reports are committed')
    const held = 'ares_listener_held_messages{service="listener"} 0'
    await until(async () => (await context.metrics.metrics()).includes(held), 'all is acknowledged', 8_000)
  })
})
