import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TestAuthority, until } from '@ares/chassis/testing'
import { type EmbeddedBroker, startEmbeddedBroker } from '@ares/emqx'
import { topics } from '@ares/proto'
import type { MqttClient } from 'mqtt'
import { CountingProxy } from './testing/counting-proxy'
import { ListenerBench, report, type Started } from './testing/listener-bench'
import { Mosquitto } from './testing/mosquitto'

/** Two listeners, and ways to api that hang. What a broker does with the session of one that leaves differs by broker. */
const IMPATIENT = { commitDeadlineMs: 500, standAsideAfterMs: 6_000 }
const LEAVES_WITHIN_MS = 30_000
const LEAVING = { leaveGroup: 'unless_keeper' } as const

let ca: TestAuthority
let bench: ListenerBench
let ways: { readonly first: CountingProxy; readonly second: CountingProxy }
let device: MqttClient
let flow: NodeJS.Timeout
let sent: number

beforeAll(async () => {
  ca = await TestAuthority.create()
})
beforeEach(async () => {
  bench = await ListenerBench.create(ca)
  ways = { first: await CountingProxy.start(bench.apiPort), second: await CountingProxy.start(bench.apiPort) }
})
afterEach(async () => {
  clearInterval(flow)
  ways.first.heal()
  ways.second.heal()
  await bench.close()
  await Promise.all([ways.first.stop(), ways.second.stop()])
})

async function twoListeners(urls: { services: string; devices: string }): Promise<{ first: Started; second: Started }> {
  const by = ({ port }: CountingProxy) => ({ ...IMPATIENT, apiAddress: `127.0.0.1:${port}` })
  const first = await bench.listener(urls.services, LEAVING, '0000000a', by(ways.first))
  const second = await bench.listener(urls.services, LEAVING, '0000000b', by(ways.second))
  const { caPem, chainPem, keyPem } = await ca.leaf('d1.device.ares4.internal')
  device = await bench.device(urls.devices, { ca: caPem, cert: chainPem, key: keyPem, protocolVersion: 4 })
  sent = 0
  flow = setInterval(() => void device.publishAsync(topics.telemetry('d1'), report(sent++), { qos: 1 }), 20)
  await until(() => new Set(bench.api.calls.map(({ listener }) => listener)).size === 2, 'both commit')
  return { first, second }
}

const mqtt = async ({ context }: Started) => (await context.health.report()).checks.mqtt?.detail
const isAside = async (listener: Started) => (await mqtt(listener))?.includes('stands aside') === true
const committed = () => new Set(bench.api.payloads.map((payload) => JSON.parse(payload).sequence)).size
const failingForMs = async ({ context }: Started) => {
  const detail = (await context.health.report()).checks.ingest?.detail ?? ''
  return Number(/not committed anything for (\d+) s/.exec(detail)?.[1] ?? 0) * 1_000
}

describe('with the embedded broker, which gives the others what was in a session that ends', () => {
  let broker: EmbeddedBroker
  let folder: string

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ares-aside-'))
    broker = await startEmbeddedBroker({
      confFile: join(__dirname, '../../../emqx/emqx.conf'),
      env: await openDoors(folder),
      logger: { debug() {}, info() {}, warn() {}, error() {} },
    })
  })
  afterEach(async () => {
    await bench.close()
    await broker?.stop()
    await rm(folder, { recursive: true })
  })

  it('one that alone is cut off from api leaves, all it held is committed by the other, and it comes back', async () => {
    const { services, devices } = broker.ports
    const urls = { services: `mqtts://localhost:${services}`, devices: `mqtts://localhost:${devices}` }
    const { first, second } = await twoListeners(urls)
    ways.first.hang()
    await until(() => isAside(first), 'the one that is cut off stands aside', LEAVES_WITHIN_MS)
    clearInterval(flow)
    await until(() => committed() === sent, 'everything is committed by the other', 20_000)
    expect(await second.isUp()).toBe(true)
    ways.first.heal()
    await until(first.isUp, 'it is back in the group', 20_000)
  }, 90_000)
})

describe('with mosquitto and MQTT 5', () => {
  let broker: Mosquitto
  let urls: { services: string; devices: string }

  beforeAll(async () => {
    broker = await Mosquitto.start(await ca.leaf('broker.ares4.internal'))
    urls = { services: `mqtts://localhost:${broker.port}`, devices: `mqtts://localhost:${broker.port}` }
  })
  afterAll(() => broker?.stop())

  it('when one stands aside, the other stays in the group even while it is restarted', async () => {
    bench.api.standing = { listeners: 1, hasKeeper: true } // api does not know yet that the keeper has left
    const { first, second } = await twoListeners(urls)
    ways.first.hang()
    await until(() => isAside(first), 'the one that is cut off stands aside', LEAVES_WITHIN_MS)
    await second.service.stop()
    bench.services.splice(1, 1)
    await until(first.isUp, 'the one that stood aside is back: somebody has to hold the messages', 20_000)
    clearInterval(flow)
    ways.first.heal()
    await bench.listener(urls.services, LEAVING, '0000000b')
    await until(() => committed() === sent, 'everything is committed', 20_000)
  }, 90_000)

  it('nobody leaves when api is gone for all, and nothing is lost', async () => {
    const { first, second } = await twoListeners(urls)
    ways.first.hang()
    ways.second.hang()
    const isLong = async () =>
      (await failingForMs(first)) > IMPATIENT.standAsideAfterMs + 2_000 &&
      (await failingForMs(second)) > IMPATIENT.standAsideAfterMs + 2_000
    await until(isLong, 'both have not committed for longer than they may', LEAVES_WITHIN_MS)
    expect([await first.isUp(), await second.isUp()]).toEqual([true, true])
    clearInterval(flow)
    ways.first.heal()
    ways.second.heal()
    await until(() => committed() === sent, 'everything is committed', 20_000)
  }, 90_000)
})

/** emqx.conf without its hooks: who may come in is not the matter here. */
async function openDoors(folder: string): Promise<Record<string, string>> {
  const { caPem, chainPem, keyPem } = await ca.leaf('broker.ares4.internal')
  const files = { CACERTFILE: caPem, CERTFILE: chainPem, KEYFILE: keyPem }
  const env: Record<string, string> = {
    EMQX_AUTHENTICATION__1__ENABLE: 'false',
    EMQX_AUTHORIZATION__SOURCES__1__ENABLE: 'false',
    EMQX_AUTHORIZATION__NO_MATCH: 'allow',
    EMQX_DASHBOARD__LISTENERS__HTTP__BIND: '127.0.0.1:0',
    EMQX_API_KEY__BOOTSTRAP_FILE: join(folder, 'api-keys'),
  }
  await writeFile(join(folder, 'api-keys'), 'ares:secret:administrator\n')
  for (const [name, pem] of Object.entries(files)) {
    const file = join(folder, name)
    await writeFile(file, pem)
    for (const listener of ['SSL__DEVICES', 'SSL__SERVICES', 'WSS__USERS']) {
      env[`EMQX_LISTENERS__${listener}__BIND`] = '127.0.0.1:0'
      if (listener === 'WSS__USERS' && name === 'CACERTFILE') continue
      env[`EMQX_LISTENERS__${listener}__SSL_OPTIONS__${name}`] = file
    }
  }
  return env
}
