import { TestAuthority, TestIdentity, until } from '@ares/chassis/testing'
import type { Entry } from '@ares/proto/directory/v1/directory'
import { openReplica } from '../testing/open-replica'
import { TestApi } from '../testing/test-api'
import { change, deviceEntry, heartbeat, snapshot } from '../testing/test-directory'
import { DirectoryReplica, StreamBroken } from './directory-replica'

const devices = (count: number): Entry[] =>
  Array.from({ length: count }, (_, i) => deviceEntry(`d${i}`, [Buffer.from([0, 1, i & 255])]))

const load = (replica: DirectoryReplica, entries: readonly Entry[], version = 1n) => {
  for (const event of snapshot(entries, { version })) replica.receive(event)
}

describe('the replica', () => {
  it('knows nothing before the end of its first snapshot, and nothing of a snapshot that was cut', () => {
    const replica = new DirectoryReplica()
    const events = [...snapshot(devices(3))]
    for (const event of events.slice(0, -1)) replica.receive(event)
    expect(replica.knowledge()).toBeUndefined()
    replica.streamEnded()
    expect(() => replica.receive(events.at(-1)!)).toThrow(StreamBroken)
    expect(replica.knowledge()).toBeUndefined()
    load(replica, devices(3))
    expect(replica.knowledge()?.directory.device('d2')?.hasSerial('0102')).toBe(true)
    expect(replica.position).toEqual({ epoch: 'epoch-1', version: 1n })
  })

  it('answers from the old tables until a new snapshot is complete, then only from the new ones', () => {
    const replica = new DirectoryReplica()
    load(replica, devices(2))
    const events = [...snapshot([deviceEntry('new', [])], { epoch: 'epoch-2', version: 9n })]
    replica.receive(events[0]!)
    replica.receive(events[1]!)
    expect(replica.knowledge()?.directory.device('d0')).toBeDefined()
    expect(replica.knowledge()?.directory.device('new')).toBeUndefined()
    replica.receive(events[2]!)
    expect(replica.knowledge()?.directory.device('d0')).toBeUndefined()
    expect(replica.knowledge()?.directory.device('new')).toBeDefined()
    expect(replica.position).toEqual({ epoch: 'epoch-2', version: 9n })
  })

  it('takes changes one after the other and refuses a gap, a repetition and a heartbeat that is ahead', () => {
    const replica = new DirectoryReplica()
    load(replica, devices(1), 5n)
    replica.receive(change(6n, deviceEntry('d0', [], { active: false }), deviceEntry('d9', [])))
    expect(replica.knowledge()?.directory.device('d0')?.active).toBe(false)
    expect(replica.knowledge()?.directory.device('d9')).toBeDefined()
    expect(() => replica.receive(change(8n))).toThrow(StreamBroken)
    expect(() => replica.receive(change(6n))).toThrow(StreamBroken)
    expect(() => replica.receive(heartbeat(7n))).toThrow(StreamBroken)
    expect(() => replica.receive({ event: undefined })).toThrow(StreamBroken)
    expect(replica.position.version).toBe(6n)
    replica.receive(heartbeat(6n))
  })

  it('refuses a snapshot with another count or version than announced', () => {
    const replica = new DirectoryReplica()
    const [begin, chunk] = [...snapshot(devices(3))]
    for (const end of [
      { version: 1n, entries: 2n },
      { version: 2n, entries: 3n },
    ]) {
      replica.receive(begin!)
      replica.receive(chunk!)
      expect(() => replica.receive({ event: { $case: 'snapshotEnd', value: end } })).toThrow(StreamBroken)
      expect(replica.knowledge()).toBeUndefined()
    }
  })

  it('says how old it is: since api last said that this is all', () => {
    let now = 0
    const replica = new DirectoryReplica(() => now)
    load(replica, devices(1))
    now = 4_000
    expect(replica.knowledge()?.ageMs).toBe(4_000)
    replica.receive(heartbeat(1n))
    expect(replica.knowledge()?.ageMs).toBe(0)
  })

  it('leaves out and counts what makes no sense', () => {
    const replica = new DirectoryReplica()
    load(replica, [
      { entry: undefined },
      { entry: { $case: 'sessionKey', value: { kid: 'k', publicKey: Buffer.from('no key'), notAfter: new Date() } } },
      deviceEntry('x'.repeat(300), []),
    ])
    expect(replica.sizes().leftOut).toBe(3)
    expect(replica.knowledge()?.directory.sessionKey('k')).toBeUndefined()
  })
})

describe('the stream', () => {
  let ca: TestAuthority
  let apiIdentity: TestIdentity
  let own: TestIdentity
  const ends: (() => void | Promise<void>)[] = []

  beforeAll(async () => {
    ca = await TestAuthority.create()
    apiIdentity = new TestIdentity(await ca.leaf('api.service.ares4.internal'))
    own = new TestIdentity(await ca.leaf('authorizer.service.ares4.internal'))
  })

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end()
  })

  function watch(port: number, silenceMs?: number): ReturnType<typeof openReplica> {
    const opened = openReplica(port, own, silenceMs)
    ends.push(() => opened.close())
    return opened
  }

  async function serve(onWatch: Parameters<typeof TestApi.start>[1], port = 0): Promise<TestApi> {
    const api = await TestApi.start(apiIdentity, onWatch, port)
    ends.push(() => api.stop())
    return api
  }

  it('loads a snapshot, follows changes, and is resumed from where it stood', async () => {
    const api = await serve((call) => {
      if (call.request.fromVersion === 0n) for (const event of snapshot(devices(12_000))) call.write(event)
      else call.write(change(call.request.fromVersion + 1n, deviceEntry('resumed', [])))
    })
    const { replica } = watch(api.port)
    await until(() => replica.position.version === 1n, 'the snapshot')
    expect(replica.sizes().devices).toBe(12_000)
    api.lastCall.write(change(2n, deviceEntry('changed', [])))
    await until(() => replica.position.version === 2n, 'the change')
    api.lastCall.end()
    await until(() => replica.position.version === 3n, 'the resumed stream')
    expect(api.calls.map((call) => [call.request.epoch, call.request.fromVersion])).toEqual([
      ['', 0n],
      ['epoch-1', 2n],
    ])
    expect(replica.knowledge()?.directory.device('resumed')).toBeDefined()
  })

  it('is confirmed, under the name of each stream, up to the version that decisions are made from', async () => {
    const api = await serve((call) => {
      if (call.request.fromVersion === 0n) for (const event of snapshot(devices(10))) call.write(event)
    })
    watch(api.port)
    const last = () => api.confirmed.at(-1)
    await until(() => last()?.version === 1n, 'the snapshot is confirmed')
    for (const version of [2n, 3n, 4n]) api.lastCall.write(change(version))
    await until(() => last()?.version === 4n, 'the changes are confirmed')
    expect(new Set(api.confirmed.map(({ watchId }) => watchId))).toEqual(new Set([api.lastCall.request.watchId]))
    api.lastCall.end()
    await until(() => api.calls.length === 2, 'the second stream')
    api.lastCall.write(change(5n))
    await until(() => last()?.version === 5n, 'the change of the second stream is confirmed')
    expect(last()?.watchId).toBe(api.lastCall.request.watchId)
    expect(api.calls[0]?.request.watchId).not.toBe(api.lastCall.request.watchId)
  })

  it('that is cut within a snapshot changes nothing, and the next one begins anew', async () => {
    const api = await serve((call) => {
      const events = [...snapshot(devices(6_000))]
      const cut = api.calls.length < 3
      for (const event of cut ? events.slice(0, 2) : events) call.write(event)
      if (cut) call.end()
    })
    const { replica } = watch(api.port)
    await until(() => replica.knowledge() !== undefined, 'the third stream')
    expect(api.calls.length).toBe(3)
    expect(replica.sizes().devices).toBe(6_000)
  })

  it('with a gap is opened again from the version held; with a second gap it asks for a snapshot', async () => {
    const api = await serve((call) => {
      if (call.request.fromVersion === 0n) {
        for (const event of snapshot(devices(1), { version: api.calls.length > 1 ? 20n : 1n })) call.write(event)
      } else {
        call.write(change(call.request.fromVersion + 5n))
      }
    })
    const { replica, causes } = watch(api.port)
    await until(() => replica.position.version === 1n, 'the snapshot')
    api.lastCall.write(change(9n))
    await until(() => replica.position.version === 20n, 'the new snapshot')
    expect(api.calls.map((call) => call.request.fromVersion)).toEqual([0n, 1n, 0n])
    expect(causes).toEqual(['broken', 'broken'])
  })

  it('that says nothing for too long is opened again', async () => {
    const api = await serve((call) => {
      for (const event of snapshot(devices(1))) call.write(event)
    })
    const { causes } = watch(api.port, 200)
    await until(() => api.calls.length > 1, 'a second stream')
    expect(causes[0]).toBe('silent')
  })

  it('comes back when api does, and the replica answers meanwhile', async () => {
    const serveAll: Parameters<typeof TestApi.start>[1] = (call) => {
      for (const event of snapshot(devices(2), { version: 4n })) call.write(event)
    }
    const api = await TestApi.start(apiIdentity, serveAll)
    const { replica, causes } = watch(api.port)
    await until(() => replica.position.version === 4n, 'the snapshot')
    await api.stop()
    await until(() => causes.length > 0, 'the end of the stream')
    expect(replica.knowledge()?.directory.device('d1')).toBeDefined()
    const again = await serve(serveAll, api.port)
    await until(() => again.calls.length > 0, 'a new stream')
    expect(again.lastCall.request.fromVersion).toBe(4n)
  })
})
