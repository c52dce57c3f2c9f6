import { TestAuthority, TestIdentity, until } from '@ares/chassis/testing'
import { type Checksum, type Entry, Role } from '@ares/proto/directory/v1/directory'
import { openReplica } from '../testing/open-replica'
import { TestApi } from '../testing/test-api'
import {
  change,
  deviceEntry,
  heartbeat,
  revokedEntry,
  snapshot,
  TestSessions,
  userEntry,
} from '../testing/test-directory'
import { DirectoryTables } from './directory'
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
      deviceEntry('gerät', []),
    ])
    expect(replica.sizes().leftOut).toBe(4)
    expect(replica.knowledge()?.directory.sessionKey('k')).toBeUndefined()
  })
})

/** What api would say of these entries. */
function checksumOf(entries: readonly Entry[], version = 1n): Checksum {
  const tables = new DirectoryTables()
  for (const entry of entries) tables.apply(entry)
  return { version, ...tables.checksum() }
}

const BEFORE_ALL = new Date(0)

describe('the checksum', () => {
  const sessions = new TestSessions()
  const serial = (n: number) => Buffer.from(n.toString(16).padStart(8, '7'), 'hex')

  it('is the same whatever way the entries came', () => {
    const entries = [
      sessions.entry(),
      revokedEntry(serial(1), 'd1', new Date(2_000)),
      deviceEntry('d1', [serial(2)], { active: false }),
      deviceEntry('d2', [serial(3), serial(4)], { organizationId: 'org-2' }),
      userEntry('a@x.org', { 'org-1': Role.ROLE_VIEWER, 'org-2': Role.ROLE_OWNER }),
    ]
    const directly = checksumOf(entries)
    const detours = [
      deviceEntry('d2', [serial(9)]),
      deviceEntry('gone', [serial(8)]),
      userEntry('a@x.org', {}),
      userEntry('b@x.org', { 'org-1': Role.ROLE_VIEWER }),
      revokedEntry(serial(1), 'd1', new Date(1_000)),
      ...entries.toReversed(),
      ...entries,
      { entry: { $case: 'removedDeviceId', value: 'gone' } } as const,
      { entry: { $case: 'removedDeviceId', value: 'never there' } } as const,
      { entry: { $case: 'removedUserId', value: 'id-of-b@x.org' } } as const,
    ]
    expect(checksumOf(detours)).toEqual(directly)
    expect(directly.entries).toBe(5n)
  })

  it('follows an e-mail that two people exchange, in whatever order their changes come', () => {
    const ann = userEntry('ann@x.org', {}, { id: 'u1' })
    const bob = userEntry('bob@x.org', {}, { id: 'u2' })
    const after = [userEntry('bob@x.org', {}, { id: 'u1' }), userEntry('ann@x.org', {}, { id: 'u2' })]
    expect(checksumOf([ann, bob, ...after])).toEqual(checksumOf(after))
    expect(checksumOf([ann, bob, ...after.toReversed()])).toEqual(checksumOf(after))
  })

  it('is compared with the one that the replica had at that version, whatever changed since', () => {
    const replica = new DirectoryReplica()
    load(replica, devices(3))
    expect(replica.receive(heartbeat(1n, { checksumBeginsWithout: BEFORE_ALL }))).toBeUndefined()
    replica.receive(change(2n, deviceEntry('d9', [])))
    const checksum = checksumOf(devices(3))
    expect(replica.receive(heartbeat(2n, { checksum }))).toMatchObject({ equal: true })
    expect(replica.receive(heartbeat(2n, { checksum: { ...checksum, sum: checksum.sum + 1n } }))?.equal).toBe(false)
    expect(replica.receive(heartbeat(2n, { checksum: { ...checksum, version: 2n } }))).toBeUndefined()
  })

  it.each<readonly [string, (replica: DirectoryReplica) => void]>([
    ['a change that was lost on the way', (replica) => replica.receive(change(2n))],
    [
      'a record that was tampered with',
      (replica) => {
        replica.receive(change(2n, deviceEntry('d0', [], { active: false })))
        ;(replica.knowledge()!.directory as DirectoryTables).apply(deviceEntry('d0', []))
      },
    ],
    [
      'a revocation that was undone',
      (replica) => {
        replica.receive(change(2n, deviceEntry('d0', [], { active: false })))
        ;(replica.knowledge()!.directory as DirectoryTables).forgetEnded(Number.MAX_SAFE_INTEGER)
      },
    ],
  ])('shows %s', (_what, happen) => {
    const replica = new DirectoryReplica()
    const before = [...devices(3), revokedEntry(serial(1), 'd1')]
    load(replica, before)
    happen(replica)
    replica.receive(heartbeat(2n, { checksumBeginsWithout: BEFORE_ALL }))
    const checksum = checksumOf([...before, deviceEntry('d0', [], { active: false })], 2n)
    expect(replica.receive(heartbeat(2n, { checksum }))?.equal).toBe(false)
  })
})

describe('what has ended', () => {
  const serial = (n: number) => Buffer.from(n.toString(16).padStart(40, '7'), 'hex')

  it('is forgotten when api says so, and not before', () => {
    const replica = new DirectoryReplica()
    const early = new TestSessions()
    const late = new TestSessions()
    load(replica, [
      revokedEntry(serial(1), 'd1', new Date(1_000)),
      revokedEntry(serial(2), 'd1', new Date(2_000)),
      early.entry(new Date(1_000)),
      late.entry(new Date(2_000)),
    ])
    const known = () => {
      const { directory } = replica.knowledge()!
      return [
        directory.isRevoked(serial(1).toString('hex')),
        directory.isRevoked(serial(2).toString('hex')),
        directory.sessionKey(early.kid) !== undefined,
        directory.sessionKey(late.kid) !== undefined,
      ]
    }
    replica.receive(heartbeat(1n, { checksumBeginsWithout: new Date(999) }))
    expect(known()).toEqual([true, true, true, true])
    replica.receive(heartbeat(1n, { checksumBeginsWithout: new Date(1_000) }))
    expect(known()).toEqual([false, true, false, true])
    const checksum = checksumOf([revokedEntry(serial(2), 'd1', new Date(2_000)), late.entry(new Date(2_000))])
    expect(replica.receive(heartbeat(1n, { checksum }))?.equal).toBe(true)
  })

  it('leaves room for what comes: years of revocations need no more memory than a few months', () => {
    const tables = new DirectoryTables()
    const revokedADay = 200
    const month = (first: number) => {
      for (let day = first; day < first + 30; day++) {
        for (let n = 0; n < revokedADay; n++) {
          tables.apply(revokedEntry(serial(day * revokedADay + n), 'd', new Date((day + 30) * 86_400_000)))
        }
        tables.forgetEnded(day * 86_400_000)
      }
    }
    for (let months = 0; months < 4; months++) month(months * 30)
    const { bytes, revoked } = tables.sizes()
    for (let months = 4; months < 12; months++) month(months * 30)
    expect(tables.sizes()).toMatchObject({ bytes, revoked })
    expect(revoked).toBe(30 * revokedADay)
    expect(tables.isRevoked(serial(360 * revokedADay - 1).toString('hex'))).toBe(true)
    expect(tables.isRevoked(serial(revokedADay).toString('hex'))).toBe(false)
  })

  it('without a known end, a revoked certificate is kept for good', () => {
    const tables = new DirectoryTables()
    tables.apply({
      entry: { $case: 'revokedCertificate', value: { serial: serial(1), deviceId: 'd1', revokedAt: new Date() } },
    })
    tables.forgetEnded(Date.now() + 1e12)
    expect(tables.isRevoked(serial(1).toString('hex'))).toBe(true)
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

  function watch(port: number, times?: Parameters<typeof openReplica>[2]): ReturnType<typeof openReplica> {
    const opened = openReplica(port, own, times)
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

  it.each([
    ['a change that was lost', change(2n)],
    ['a record that was tampered with', change(2n, deviceEntry('d1', [Buffer.from([0x66])]))],
  ])('shows by its checksum %s, and a new snapshot heals it, while the replica answers', async (_what, wrong) => {
    const now = [...devices(2), deviceEntry('d1', [Buffer.from([0x77])])]
    const api = await serve((call) => {
      if (api.calls.length > 1) for (const event of snapshot(now, { version: 2n })) call.write(event)
      else for (const event of snapshot(devices(2))) call.write(event)
    })
    const { replica, causes, compared } = watch(api.port)
    const compare = () => {
      api.lastCall.write(heartbeat(2n, { checksumBeginsWithout: BEFORE_ALL }))
      api.lastCall.write(heartbeat(2n, { checksum: checksumOf(now, 2n) }))
    }
    await until(() => replica.position.version === 1n, 'the snapshot')
    api.lastCall.write(wrong)
    compare()
    await until(() => causes.length === 1, 'the end of the stream')
    expect(replica.knowledge()?.directory.device('d1')).toBeDefined()
    await until(() => api.calls.length === 2, 'the second stream')
    expect(api.lastCall.request.fromVersion).toBe(0n)
    await until(() => replica.knowledge()?.directory.device('d1')?.hasSerial('77') === true, 'the new snapshot')
    compare()
    await until(() => compared.length === 2, 'the second comparison')
    expect(compared).toEqual(['differs', 'equal'])
    expect(causes).toEqual(['differs'])
  })

  it('is not asked for snapshot after snapshot when they do not help, and the difference goes on being counted', async () => {
    const api = await serve((call) => {
      for (const event of snapshot(devices(2))) call.write(event)
    })
    const { replica, causes, compared } = watch(api.port)
    await until(() => replica.position.version === 1n, 'the snapshot')
    const compare = () => {
      api.lastCall.write(heartbeat(1n, { checksumBeginsWithout: BEFORE_ALL }))
      api.lastCall.write(heartbeat(1n, { checksum: checksumOf(devices(9)) }))
    }
    compare()
    await until(() => api.calls.length === 2, 'the second stream')
    compare()
    compare()
    await until(() => compared.length === 3, 'two more comparisons')
    expect(compared).toEqual(['differs', 'differs', 'differs'])
    expect(causes).toEqual(['differs'])
  })

  it('that says nothing for too long is opened again', async () => {
    const api = await serve((call) => {
      for (const event of snapshot(devices(1))) call.write(event)
    })
    const { causes } = watch(api.port, { silenceMs: 200 })
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
