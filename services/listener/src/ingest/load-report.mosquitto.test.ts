import { TestAuthority, until } from '@ares/chassis/testing'
import { topics } from '@ares/proto'
import { ListenerBench, report } from '../testing/listener-bench'
import { Mosquitto } from '../testing/mosquitto'
import { commitAll } from '../testing/test-api'

let ca: TestAuthority
let broker: Mosquitto
let bench: ListenerBench

beforeAll(async () => {
  ca = await TestAuthority.create()
  broker = await Mosquitto.start(await ca.leaf('broker.ares4.internal'))
})
afterAll(() => broker?.stop())
beforeEach(async () => {
  bench = await ListenerBench.create(ca)
})
afterEach(() => bench.close())

it('says what is held, for how long, and how much was committed', async () => {
  const url = `mqtts://localhost:${broker.port}`
  let release: () => void = () => undefined
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  bench.api.answer = async (request) => {
    await held
    return commitAll(request)
  }
  await bench.listener(url)
  const leaf = await ca.leaf('d1.device.ares4.internal')
  const device = await bench.device(url, { ca: leaf.caPem, cert: leaf.chainPem, key: leaf.keyPem })
  for (let i = 0; i < 30; i += 1) await device.publishAsync(topics.telemetry('d1'), report(i), { qos: 1 })
  const last = () => bench.api.loads.at(-1)
  await until(() => last()?.heldMessages === 30 && (last()?.oldestHeldMs ?? 0) > 500, 'it says that they wait')
  expect(last()).toMatchObject({ listener: 'ares4-mqtt-listener-0000000a', sessionUp: true, committed: 0 })
  release()
  await until(() => last()?.heldMessages === 0, 'it says that nothing waits any more')
  const committed = () => bench.api.loads.reduce((all, load) => all + load.committed, 0)
  await until(() => committed() === 30, 'it has said each committed message once')
})

it('stays in the group when it is the keeper, so that the broker queues while nobody is there', async () => {
  const url = `mqtts://localhost:${broker.port}`
  await bench.listener(url, { leaveGroup: 'unless_keeper' })
  await until(() => bench.api.loads.length > 0, 'it has asked api')
  await bench.services.pop()?.stop()
  const leaf = await ca.leaf('d1.device.ares4.internal')
  const device = await bench.device(url, { ca: leaf.caPem, cert: leaf.chainPem, key: leaf.keyPem })
  for (let i = 0; i < 20; i += 1) await device.publishAsync(topics.telemetry('d1'), report(i), { qos: 1 })
  await bench.listener(url, { leaveGroup: 'unless_keeper' })
  await until(() => bench.api.committed.length >= 20, 'what was published meanwhile is committed')
})
