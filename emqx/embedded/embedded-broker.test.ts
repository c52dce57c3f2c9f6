import { until } from '@ares/chassis/testing'
import { TestBroker } from './testing/test-broker'

describe('the embedded broker', () => {
  let broker: TestBroker
  beforeAll(async () => {
    broker = await TestBroker.start()
  })
  afterEach(() => broker.reset())
  afterAll(() => broker.stop())

  test('admits a device by its certificate, tells the authorizer about it, and obeys the acl of its answer', async () => {
    const device = await broker.authority.leaf('d1.device.ares4.internal')
    broker.hooks.authn = {
      body: {
        result: 'allow',
        acl: [
          { permission: 'allow', action: 'publish', topic: 'ares4/d1/telemetry', qos: [0, 1] },
          { permission: 'deny', action: 'all', topic: '#' },
        ],
      },
    }
    const client = await broker.connect(device, { clientId: 'd1', username: 'evil', password: 'p' })
    expect(broker.hooks.requests[0]?.body).toEqual({
      clientid: 'd1',
      username: 'd1.device.ares4.internal',
      password: 'p',
      peerhost: '127.0.0.1',
      cert_common_name: 'd1.device.ares4.internal',
      cert_pem: device.der,
      zone: 'devices',
    })
    expect(broker.hooks.requests[0]?.callerName).toBe('broker.ares4.internal')
    await client.publishAsync('ares4/d1/telemetry', 'x', { qos: 1 })
    expect(broker.hooks.requestsTo('/mqtt/authz')).toEqual([])
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()))
    client.publish('ares4/d2/telemetry', 'x', { qos: 1 })
    await closed
  })

  test('a kick closes the connection and is told from an unknown client', async () => {
    const device = await broker.authority.leaf('d2.device.ares4.internal')
    const client = await broker.connect(device, { clientId: 'd2' })
    let closed = false
    client.once('close', () => {
      closed = true
    })
    expect((await broker.manage('DELETE', '/clients/d2')).status).toBe(204)
    await until(() => closed, 'the client is closed')
    expect(await broker.manage('DELETE', '/clients/d2')).toEqual({
      status: 404,
      body: { code: 'CLIENTID_NOT_FOUND', message: 'Client ID not found' },
    })
  })

  test('delivers QoS 1 from a device to a service', async () => {
    const device = await broker.connect(await broker.authority.leaf('d3.device.ares4.internal'), { clientId: 'd3' })
    const service = await broker.connectService(await broker.authority.leaf('listener.service.ares4.internal'), {
      clientId: 'ares4-mqtt-listener-1',
      clean: false,
    })
    const received: string[] = []
    service.on('message', (topic, payload) => received.push(`${topic} ${payload}`))
    await service.subscribeAsync('$share/ares4-listeners/ares4/+/telemetry', { qos: 1 })
    await device.publishAsync('ares4/d3/telemetry', 'hello', { qos: 1 })
    await until(() => received.length === 1, 'the message is there')
    expect(received).toEqual(['ares4/d3/telemetry hello'])
  })
})
