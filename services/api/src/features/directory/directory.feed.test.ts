import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket, type Server as TcpServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '@ares/chassis/testing'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import {
  DeviceState,
  DirectoryServiceClient,
  DirectoryServiceService,
  type Entry,
  type Heartbeat,
  type WatchDirectoryRequest,
  type WatchDirectoryResponse,
} from '@ares/proto/directory/v1/directory'
import {
  ContentChecksum,
  deviceContent,
  revokedContent,
  sessionKeyContent,
  userContent,
} from '@ares/proto/directory-checksum'
import { type ClientReadableStream, credentials, Server, ServerCredentials, type ServiceError } from '@grpc/grpc-js'
import { Pool } from 'pg'
import { Notifications } from '../../database/notifications'
import { createTestDevice } from '../../testing/fleet'
import { DirectoryFeed } from './directory.feed'
import { directoryRpc } from './directory.rpc'
import { DirectoryStore } from './directory.store'

const silent = { info() {}, warn() {}, error() {} } as never

let database: TestDatabase
let pool: Pool
let notifications: Notifications
let store: DirectoryStore
let feed: DirectoryFeed
let server: Server
let client: DirectoryServiceClient
let stopping: AbortController

beforeAll(async () => {
  database = await createTestDatabase()
  pool = new Pool({ connectionString: database.url, max: 20 })
  notifications = new Notifications({ connectionString: database.url, logger: silent, retryMs: 50 })
  await notifications.start()
  store = new DirectoryStore(pool, 3)
  stopping = new AbortController()
  feed = new DirectoryFeed(store, notifications, { heartbeatMs: 200, pollMs: 150 })
  server = new Server()
  server.addService(
    DirectoryServiceService,
    directoryRpc(feed, { logger: silent, signal: stopping.signal, slowAfterMs: 300 }),
  )
  const port = await new Promise<number>((bound, failed) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, at) =>
      error ? failed(error) : bound(at),
    ),
  )
  client = new DirectoryServiceClient(`127.0.0.1:${port}`, credentials.createInsecure())
})
afterAll(async () => {
  stopping?.abort()
  client?.close()
  server?.forceShutdown()
  await notifications?.stop()
  await pool?.end()
  await database?.drop()
})

it('an empty replica gets a snapshot with everything, and its count', async () => {
  const { deviceId, organizationId } = await createTestDevice(pool)
  await addCertificate(deviceId, '00:9f:3a', 'active')
  await addCertificate(deviceId, '11:22', 'revoked')
  await addCertificate(deviceId, '33:44', 'retired')
  const userId = randomUUID()
  await pool.query('INSERT INTO users (id, email, password_hash) VALUES ($1, $2, $3)', [userId, 'a@example.org', 'x'])
  await pool.query('INSERT INTO memberships (organization_id, user_id, role) VALUES ($1, $2, $3)', [
    organizationId,
    userId,
    'operator',
  ])
  await pool.query(
    `INSERT INTO session_keys (kid, public_key, not_after) VALUES ('k1', '\\x01', now() + interval '1 hour')`,
  )

  const watch = open()
  const { entries, head, announced } = await watch.snapshot()
  watch.cancel()
  expect(announced).toBe(BigInt(entries.length))
  expect(head).toEqual(await store.head())
  expect(entries).toContainEqual({
    entry: {
      $case: 'device',
      value: {
        id: deviceId,
        organizationId,
        state: DeviceState.DEVICE_STATE_ACTIVE,
        certificateSerials: [Buffer.from('9f3a', 'hex')],
      },
    },
  })
  expect(entries).toContainEqual({
    entry: {
      $case: 'user',
      value: { id: userId, email: 'a@example.org', active: true, memberships: [{ organizationId, role: 2 }] },
    },
  })
  const kinds = entries.map(({ entry }) => entry?.$case)
  expect(kinds).toContain('sessionKey')
  expect(kinds.filter((kind) => kind === 'revokedCertificate')).toHaveLength(1)
})

it('a snapshot of many chunks is complete', async () => {
  const devices = await Promise.all(Array.from({ length: 10 }, () => createTestDevice(pool)))
  const watch = open()
  const { entries } = await watch.snapshot()
  watch.cancel()
  const ids = entries.flatMap(({ entry }) => (entry?.$case === 'device' ? [entry.value.id] : []))
  expect(new Set(ids).size).toBe(ids.length)
  for (const { deviceId } of devices) expect(ids).toContain(deviceId)
})

it('a committed change arrives with the entry as it is now, within a moment', async () => {
  const { deviceId } = await createTestDevice(pool)
  const watch = open()
  const { head } = await watch.snapshot()
  const committedAt = Date.now()
  await change('device', deviceId, async (query) => {
    await query(`UPDATE devices SET state = 'disabled' WHERE id = '${deviceId}'`)
  })
  const [event] = await watch.changes(1)
  watch.cancel()
  expect(event?.version).toBe(head.version + 1n)
  expect(event?.entries).toMatchObject([
    { entry: { $case: 'device', value: { id: deviceId, state: DeviceState.DEVICE_STATE_DISABLED } } },
  ])
  expect(Date.now() - committedAt).toBeLessThan(2_000)
})

it('a change that was rolled back never arrives, and leaves no gap', async () => {
  const watch = open()
  const { head } = await watch.snapshot()
  await expect(
    change('removed_device', randomUUID(), async () => {
      throw new Error('rolled back')
    }),
  ).rejects.toThrow('rolled back')
  const gone = randomUUID()
  await change('removed_device', gone)
  const [event] = await watch.changes(1)
  watch.cancel()
  expect(event).toMatchObject({
    version: head.version + 1n,
    entries: [{ entry: { $case: 'removedDeviceId', value: gone } }],
  })
})

it('50 changes at once reach three watchers without a gap and in order', async () => {
  const watches = [open(), open(), open()]
  const heads = await Promise.all(watches.map(async (watch) => (await watch.snapshot()).head))
  const ids = Array.from({ length: 50 }, () => randomUUID())
  await Promise.all(ids.map((id) => change('removed_device', id)))
  for (const [index, watch] of watches.entries()) {
    const changes = await watch.changes(50)
    watch.cancel()
    const from = heads[index]!.version
    expect(changes.map(({ version }) => version)).toEqual(ids.map((_, i) => from + BigInt(i) + 1n))
    const seen = changes.flatMap(({ entries }) => entries.map(({ entry }) => entry?.value))
    expect([...seen].sort()).toEqual([...ids].sort())
  }
})

it('a version is reached when every watcher has confirmed it, and not when it was only written', async () => {
  const head = await store.head()
  const first = open({ fromVersion: head.version, epoch: head.epoch, watchId: 'first' })
  const second = open({ fromVersion: head.version, epoch: head.epoch, watchId: 'second' })
  await change('removed_device', randomUUID())
  const version = head.version + 1n
  for (const watch of [first, second]) await watch.changes(1)
  expect(await feed.reached(version, 50)).toBe(false)
  const reached = feed.reached(version, 5_000)
  await confirm('first', version)
  expect(await feed.reached(version, 50)).toBe(false)
  await confirm('nobody', version)
  await confirm('second', version)
  expect(await reached).toBe(true)
  for (const watch of [first, second]) watch.cancel()
})

it('a version is not reached when nobody watches', async () => {
  const { version } = await store.head()
  for (let tries = 0; (await feed.reached(version, 20)) && tries < 100; tries++) await sleep(20)
  expect(await feed.reached(version, 20)).toBe(false)
})

it('a replica that comes back with its version gets what it missed, and no snapshot', async () => {
  const head = await store.head()
  const missed = [randomUUID(), randomUUID()]
  for (const id of missed) await change('removed_device', id)
  const watch = open({ fromVersion: head.version, epoch: head.epoch, watchId: '' })
  const changes = await watch.changes(2)
  watch.cancel()
  expect(changes.map(({ version }) => version)).toEqual([head.version + 1n, head.version + 2n])
})

it.each([
  ['another epoch', async () => ({ ...(await headRequest()), epoch: randomUUID() })],
  ['a version from the future', async () => ({ ...(await headRequest()), fromVersion: 1_000_000n })],
  ['a version that is pruned', async () => ({ ...(await headRequest()), fromVersion: 1n })],
])('a replica with %s gets a snapshot', async (_, request) => {
  await change('removed_device', randomUUID())
  const asked = await request()
  if (asked.fromVersion === 1n) await store.prune(new Date(Date.now() + 60_000))
  const watch = open(asked)
  expect((await watch.snapshot()).head).toEqual(await store.head())
  watch.cancel()
})

it('silence is filled with heartbeats that name the newest version', async () => {
  const watch = open(await headRequest())
  const event = await watch.next()
  watch.cancel()
  expect(event.event).toMatchObject({ $case: 'heartbeat', value: { version: (await store.head()).version } })
})

describe('the checksum', () => {
  const inDays = (days: number) => new Date(Date.now() + days * 86_400_000)

  it('that PostgreSQL computes is the one of the entries of a snapshot, whatever is in them', async () => {
    const { deviceId, organizationId } = await createTestDevice(pool)
    await createTestDevice(pool)
    await pool.query(`UPDATE devices SET state = 'disabled' WHERE id = $1`, [deviceId])
    for (const serial of ['00:00:9f:3b', '00', '00:00', '0a:00:00', 'ff:00:01']) {
      await addCertificate(deviceId, serial, 'active')
    }
    for (let i = 0; i < 9; i++) await addCertificate(deviceId, `7a:0${i}`, 'active')
    await addCertificate(deviceId, '00:ab:cd', 'revoked', inDays(1))
    const userId = randomUUID()
    await pool.query('INSERT INTO users (id, email, password_hash, active) VALUES ($1, $2, $3, false)', [
      userId,
      'jürgen+日本@例え.org',
      'x',
    ])
    for (const role of ['viewer', 'owner', 'operator']) {
      const other = role === 'viewer' ? organizationId : (await createTestDevice(pool)).organizationId
      await pool.query('INSERT INTO memberships (organization_id, user_id, role) VALUES ($1, $2, $3)', [
        other,
        userId,
        role,
      ])
    }
    await pool.query(`INSERT INTO session_keys (kid, public_key, not_after) VALUES ('k2', '\\x00ff', $1)`, [inDays(1)])

    const { version, ...checksum } = await (await store.beginChecksum()).compute()
    expect(version).toBe((await store.head()).version)
    expect(checksum).toEqual(checksumOf(await snapshotEntries()))
  })

  it('is without what has ended', async () => {
    const before = await (await store.beginChecksum()).compute()
    const { deviceId } = await createTestDevice(pool)
    await addCertificate(deviceId, 'e0:01', 'revoked', inDays(-1))
    await pool.query(`INSERT INTO session_keys (kid, public_key, not_after) VALUES ('ended', '\\x01', $1)`, [
      inDays(-1),
    ])
    const after = await (await store.beginChecksum()).compute()
    expect(after.entries).toBe(before.entries + 1n) // the device
    await addCertificate(deviceId, 'e0:02', 'revoked', inDays(1))
    expect((await (await store.beginChecksum()).compute()).entries).toBe(before.entries + 2n)
  })

  it('is announced at the version that the watcher holds, comes once it is computed, and again', async () => {
    const own = new DirectoryFeed(store, notifications, { pollMs: 20, firstChecksumMs: 0, checksumMs: 100 })
    const heartbeats: Heartbeat[] = []
    const end = new AbortController()
    const watching = own.watch(await headRequest(), {
      signal: end.signal,
      send: async ({ event }) => {
        if (event?.$case === 'heartbeat') heartbeats.push(event.value)
      },
    })
    for (let tries = 0; heartbeats.filter(({ checksum }) => checksum).length < 2 && tries < 1_000; tries++)
      await sleep(20)
    end.abort()
    await watching
    const { version } = await store.head()
    const expected = { version, ...checksumOf(await snapshotEntries()) }
    const came = heartbeats.filter(({ checksum }) => checksum)
    expect(came.map(({ checksum }) => checksum).slice(0, 2)).toEqual([expected, expected])
    expect(heartbeats[0]?.checksumBeginsWithout).toBeInstanceOf(Date)
    expect(heartbeats[0]?.checksum).toBeUndefined()
    expect(new Set(heartbeats.map((heartbeat) => heartbeat.version))).toEqual(new Set([version]))
  })

  it('shows a change that nobody wrote down', async () => {
    const { deviceId } = await createTestDevice(pool)
    const before = await (await store.beginChecksum()).compute()
    await pool.query(`UPDATE devices SET state = 'disabled' WHERE id = $1`, [deviceId])
    const after = await (await store.beginChecksum()).compute()
    expect([after.version, after.entries]).toEqual([before.version, before.entries])
    expect(after.sum).not.toBe(before.sum)
  })

  async function snapshotEntries(): Promise<Entry[]> {
    const entries: Entry[] = []
    await store.snapshot({
      begin: async () => {},
      chunk: async (chunk) => void entries.push(...chunk),
      end: async () => {},
    })
    return entries
  }

  function checksumOf(entries: readonly Entry[]): { entries: bigint; sum: bigint } {
    const checksum = new ContentChecksum()
    for (const { entry } of entries) checksum.add(contentOf(entry))
    return { entries: checksum.entries, sum: checksum.sum }
  }

  function contentOf(entry: Entry['entry']): string {
    const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
    switch (entry?.$case) {
      case 'device': {
        const { id, organizationId, state, certificateSerials } = entry.value
        return deviceContent(id, organizationId, state === 1, certificateSerials.map(hex))
      }
      case 'user': {
        const { id, email, active, memberships } = entry.value
        return userContent(id, email, active, new Map(memberships.map((each) => [each.organizationId, each.role])))
      }
      case 'sessionKey':
        return sessionKeyContent(entry.value.kid, entry.value.publicKey, entry.value.notAfter!.getTime())
      case 'revokedCertificate':
        return revokedContent(hex(entry.value.serial), entry.value.notAfter!.getTime())
      default:
        throw new Error(`a snapshot has no ${entry?.$case}`)
    }
  }
})

it('a change arrives although the connection that listens was cut', async () => {
  const watch = open(await headRequest())
  await pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ares-api-listen' AND datname = current_database()`,
  )
  await change('removed_device', randomUUID())
  expect(await watch.changes(1)).toHaveLength(1)
  watch.cancel()
})

it('a watcher that reads nothing is cut off, and its events do not pile up', async () => {
  let held = 0
  let isCutOff = false
  const endless: Parameters<typeof directoryRpc>[0] = {
    watch: async (_request: WatchDirectoryRequest, watcher: { send(e: WatchDirectoryResponse): Promise<void> }) => {
      try {
        for (;;) {
          await watcher.send(chunkOf(1_000))
          held += 1
        }
      } finally {
        isCutOff = true
      }
    },
  } as never
  const slow = new Server()
  slow.addService(DirectoryServiceService, directoryRpc(endless, { logger: silent, slowAfterMs: 200 }))
  const port = await new Promise<number>((bound) =>
    slow.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_, at) => bound(at)),
  )
  const line = await StallingLine.to(port)
  const lazy = new DirectoryServiceClient(`127.0.0.1:${line.port}`, credentials.createInsecure())
  const stream = lazy.watchDirectory({ fromVersion: 0n, epoch: '', watchId: '' })
  const ended = new Promise<ServiceError>((resolve) => stream.once('error', resolve))
  stream.resume()
  await until(() => held > 0, 'the first event')
  line.stall()
  const before = held
  await until(() => isCutOff, 'the watcher is cut off')
  const after = held - before
  line.flow()
  const { code } = await ended
  lazy.close()
  slow.forceShutdown()
  line.close()
  expect(code).toBe(8) // RESOURCE_EXHAUSTED
  // What the buffers on the way took before it was noticed; without the end it would go on for ever.
  expect(after).toBeLessThan(2_000)
})

/** A way to a server whose answers stop, as when the other side reads nothing. */
class StallingLine {
  private readonly answers = new Set<Socket>()

  private constructor(private readonly server: TcpServer) {}

  static async to(port: number): Promise<StallingLine> {
    const server = createServer()
    const line = new StallingLine(server)
    server.on('connection', (socket) => {
      const upstream = connect(port, '127.0.0.1')
      line.answers.add(upstream)
      socket.pipe(upstream)
      upstream.on('data', (bytes) => socket.write(bytes))
      for (const [one, other] of [
        [socket, upstream],
        [upstream, socket],
      ] as const)
        one.on('error', () => {}).on('close', () => other.destroy())
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return line
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  stall(): void {
    for (const upstream of this.answers) upstream.pause()
  }

  flow(): void {
    for (const upstream of this.answers) upstream.resume()
  }

  close(): void {
    for (const upstream of this.answers) upstream.destroy()
    this.server.close()
  }
}

const chunkOf = (count: number): WatchDirectoryResponse => ({
  event: {
    $case: 'snapshotChunk',
    value: {
      entries: Array.from({ length: count }, () => ({ entry: { $case: 'removedUserId', value: randomUUID() } })),
    },
  },
})

async function confirm(watchId: string, version: bigint): Promise<void> {
  await new Promise<void>((resolve, reject) =>
    client.confirmDirectory({ watchId, version }, (error) => (error ? reject(error) : resolve())),
  )
}

async function headRequest(): Promise<WatchDirectoryRequest> {
  const head = await store.head()
  return { fromVersion: head.version, epoch: head.epoch, watchId: '' }
}

/** A change as directory.changes.ts writes it: the last statement of a transaction. */
async function change(
  kind: string,
  id: string,
  work: (query: (text: string) => Promise<unknown>) => Promise<void> = async () => {},
): Promise<void> {
  const connection = await pool.connect()
  try {
    await connection.query('BEGIN')
    const { rows } = await connection.query('UPDATE directory_head SET version = version + 1 RETURNING version')
    await connection.query('INSERT INTO directory_changes (version, kind, id) VALUES ($1, $2, $3)', [
      rows[0].version,
      kind,
      id,
    ])
    await connection.query(`SELECT pg_notify('ares_directory', $1)`, [rows[0].version])
    await work((text) => connection.query(text))
    await connection.query('COMMIT')
  } catch (error) {
    await connection.query('ROLLBACK')
    throw error
  } finally {
    connection.release()
  }
}

async function addCertificate(
  deviceId: string,
  serial: string,
  state: string,
  notAfter = new Date(Date.now() + 86_400_000),
): Promise<void> {
  await pool.query(
    `INSERT INTO certificates (serial, device_id, fingerprint, not_before, not_after, state, revoked_at, retired_at)
     VALUES ($1, $2, $3, $5::timestamptz - interval '1 day', $5, $4::certificate_state,
             CASE WHEN $4 = 'revoked' THEN now() END, CASE WHEN $4 = 'retired' THEN now() END)`,
    [serial, deviceId, randomUUID().replaceAll('-', '').repeat(2), state, notAfter],
  )
}

/** Opens a watch and reads its events one by one. */
function open(request: WatchDirectoryRequest = { fromVersion: 0n, epoch: '', watchId: '' }) {
  const stream: ClientReadableStream<WatchDirectoryResponse> = client.watchDirectory(request)
  stream.on('error', () => {}) // the cancel at the end of each test
  const events = stream[Symbol.asyncIterator]()
  const next = async (): Promise<WatchDirectoryResponse> => (await events.next()).value
  return {
    next,
    cancel: () => stream.cancel(),
    async snapshot() {
      const begin = (await next()).event
      if (begin?.$case !== 'snapshotBegin') throw new Error(`expected a snapshot, got ${begin?.$case}`)
      const entries: Entry[] = []
      for (;;) {
        const { event } = await next()
        if (event?.$case === 'snapshotEnd') return { head: begin.value, entries, announced: event.value.entries }
        if (event?.$case !== 'snapshotChunk') throw new Error(`expected a chunk, got ${event?.$case}`)
        entries.push(...event.value.entries)
      }
    },
    async changes(count: number) {
      const changes = []
      while (changes.length < count) {
        const { event } = await next()
        if (event?.$case === 'change') changes.push(event.value)
        else if (event?.$case !== 'heartbeat') throw new Error(`expected a change, got ${event?.$case}`)
      }
      return changes
    },
  }
}
