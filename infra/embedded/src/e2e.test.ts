import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { newKeyAndCsr } from '@ares/chassis'
import { TestAuthority, until } from '@ares/chassis/testing'
import { deviceCommonName, topics } from '@ares/proto'
import {
  ApiClient,
  type Device,
  type DeviceIdentity,
  enroll,
  type FleetDevice,
  type FleetPlan,
  provisionFleet,
  Simulator,
  type TelemetryItem,
} from '@ares/simulator'
import { loginForBootstrap } from '@ares/vault'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { Client } from 'pg'
import { type Stack, startStack } from './stack'

/**
 * The whole path as it runs: real PostgreSQL, real OpenBao, the embedded broker and the three services, each a process of
 * its own. ARES_TEST_EMQX="command" puts a real EMQX in the broker's place.
 */
const PLAN: FleetPlan = { organization: 'E2E', blueprint: 'Node', devices: 3, prefix: 'node' }

let stack: Stack
let api: ApiClient
let fleet: FleetDevice[]
let identities: DeviceIdentity[]
const clients: MqttClient[] = []
const locks: Client[] = []

beforeAll(async () => {
  stack = await startStack({
    stateDir: mkdtempSync(join(tmpdir(), 'ares-e2e-')),
    ports: { http: 0, mqtt: 0, wss: 0 },
    emqx: process.env.ARES_TEST_EMQX,
    postgresSettings: { fsync: 'off', full_page_writes: 'off' },
  })
  api = stack.client()
  fleet = await provisionFleet(api, PLAN)
  identities = await Promise.all(fleet.map(({ id }) => enroll(api, id)))
}, 150_000)

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.endAsync(true)))
  await Promise.all(locks.splice(0).map((lock) => lock.end()))
})

afterAll(async () => {
  await stack?.stop()
  stack?.state.remove()
}, 60_000)

describe('from a CSR to a row', () => {
  it('stores a report that a device publishes at QoS 1, and gives it back over REST', async () => {
    const device = await connected(0)
    const at = new Date().toISOString()
    await publish(device, 0, report(0, at, { temperature: 21.5, humidity: 40.5, heater_on: true }))
    const [row] = await rows(0, 1)
    expect(row).toEqual({
      component: 'dht22-1',
      capturedAt: at,
      metrics: { temperature: 21.5, humidity: 40.5, heater_on: true },
    })
    const { items } = await api.get<{ items: TelemetryItem[] }>(`/devices/${fleet[0]!.id}/telemetry/latest`)
    expect(items).toEqual([row])
  })

  it('provisions by name: a second time it finds what there is', async () => {
    expect(await provisionFleet(api, PLAN)).toEqual(fleet)
  })

  it('sends a receipt for every report, and a simulated device keeps each until then', async () => {
    const plan = { ...PLAN, prefix: 'patient', devices: 2 }
    const simulator = await Simulator.start(api, { plan, mqttUrl: stack.urls.mqtt, intervalMs: 100 })
    await until(() => simulator.stats().committed >= 20)
    await simulator.stop()
    expect(simulator.stats()).toMatchObject({ refused: 0, dropped: 0 })
  })

  it('says who is online, and who is not any more', async () => {
    const device = await connected(1)
    await device.publishAsync(topics.status(fleet[1]!.id), '{"status":"online"}', { qos: 1, retain: true })
    await until(async () => (await api.get<Device & { online: boolean }>(`/devices/${fleet[1]!.id}`)).online)
  })
})

describe('who is refused', () => {
  it('a device that nobody knows, with a certificate of our own CA', async () => {
    const id = randomUUID()
    expect(await refusal({ clientId: id, ...tls(await certifiedBehindTheApi(id)) })).toBe('not authorized')
  })

  it('a device under the name of another', async () => {
    expect(await refusal({ clientId: fleet[1]!.id, ...tls(identities[0]!) })).toBe('not authorized')
  })

  it('a certificate of another CA, for a device that exists', async () => {
    const { keyPem, chainPem } = await (await TestAuthority.create()).leaf(deviceCommonName(fleet[0]!.id))
    const stranger = { keyPem, certificatePem: chainPem, caPem: identities[0]!.caPem }
    expect(await refusal({ clientId: fleet[0]!.id, ...tls(stranger) })).toBe('tls')
  })

  it('somebody without a certificate', async () => {
    expect(await refusal({ clientId: fleet[0]!.id, ca: identities[0]!.caPem })).toBe('tls')
  })

  it.each(['devices', 'services'] as const)(
    'a device that calls itself ares-server-v2-… at the door for %s',
    async (door) => {
      const port = door === 'devices' ? stack.ports.mqtt : stack.ports.mqttServices
      const asServer = { clientId: 'ares-server-v2-0123abcd', ...tls(identities[0]!) }
      expect(await refusal(asServer, `mqtts://localhost:${port}`)).toBe('not authorized')
    },
  )

  it('a device that publishes in the name of another: its connection ends, and nothing is stored', async () => {
    const device = await connected(0)
    const closed = new Promise<void>((resolve) => device.once('close', resolve))
    device.publish(topics.telemetry(fleet[2]!.id), report(2, new Date().toISOString()), { qos: 1 })
    await closed
    await sleep(300)
    expect(await rowsNow(2)).toEqual([])
  })
})

describe('people on MQTT, with access tokens of api', () => {
  const PASSWORD = 'long enough for a test'
  const emailOf = (name: string) => `${name}@e2e.example.org`
  let organizationId: string
  let foreign: FleetDevice

  beforeAll(async () => {
    organizationId = (await api.get<{ organizationId: string }>(`/devices/${fleet[0]!.id}`)).organizationId
    // The first user owns both organizations, the others are in one.
    const [other] = await provisionFleet(api, { ...PLAN, organization: 'Other', devices: 1, prefix: 'other' })
    foreign = other!
    const members = { viewer: 'viewer', operator: 'operator', leaver: 'viewer', demoted: 'operator', brief: 'viewer' }
    for (const [name, role] of Object.entries(members)) {
      await api.post(`/organizations/${organizationId}/members`, { email: emailOf(name), role, password: PASSWORD })
    }
  }, 60_000)

  const tokenOf = (name: string): Promise<string> =>
    new ApiClient(stack.urls.rest, { email: emailOf(name), password: PASSWORD }).accessToken()

  const person = async (name: string, token?: string): Promise<MqttClient> =>
    connectedPerson(emailOf(name), token ?? (await tokenOf(name)))

  it('a viewer follows telemetry, status and receipts of a device of the own organization', async () => {
    const viewer = await person('viewer')
    const seen = new Set<string>()
    viewer.on('message', (topic) => seen.add(topic))
    const { id } = fleet[0]!
    const followed = [topics.telemetry(id), topics.status(id), topics.receipts(id)]
    const granted = await viewer.subscribeAsync(followed, { qos: 1 })
    expect(granted.map(({ qos }) => qos)).toEqual([1, 1, 1])
    const device = await connected(0)
    await device.publishAsync(topics.status(id), '{"status":"online"}', { qos: 1, retain: true })
    await publish(device, 0, report(0, new Date().toISOString()))
    await until(() => followed.every((topic) => seen.has(topic)))
  })

  it.each<readonly [string, (viewer: MqttClient) => void]>([
    ['telemetry of a device of another organization', (viewer) => viewer.subscribe(topics.telemetry(foreign.id))],
    ['telemetry of all devices', (viewer) => viewer.subscribe('ares4/+/telemetry')],
    ['commands', (viewer) => viewer.subscribe(`ares4/${fleet[0]!.id}/commands/+`)],
    ['a command of its own', (viewer) => viewer.publish(topics.command(fleet[0]!.id, randomUUID()), '{}', { qos: 1 })],
    ['a report in the name of a device', (viewer) => viewer.publish(topics.telemetry(fleet[0]!.id), '{}', { qos: 1 })],
  ])('a viewer loses the connection for %s', async (_what, act) => {
    const viewer = await person('viewer')
    const closed = closedOf(viewer)
    act(viewer)
    await closed
  })

  it.each([
    ['an operator', () => person('operator')],
    ['an owner', () => connectedPerson()],
  ])('%s commands a device of the own organization', async (_who, connect) => {
    const device = await connected(0)
    const got: string[] = []
    device.on('message', (topic) => got.push(topic))
    await device.subscribeAsync(`ares4/${fleet[0]!.id}/commands/+`, { qos: 1 })
    const topic = topics.command(fleet[0]!.id, randomUUID())
    await (await connect()).publishAsync(topic, '{"name":"ping"}', { qos: 1 })
    await until(() => got.includes(topic))
  })

  it('an operator loses the connection for a command to a device of another organization', async () => {
    const operator = await person('operator')
    const closed = closedOf(operator)
    operator.publish(topics.command(foreign.id, randomUUID()), '{"name":"ping"}', { qos: 1 })
    await closed
  })

  it('nobody comes in with the token of another person, with a changed one, or as a device', async () => {
    const token = await tokenOf('viewer')
    const asViewer = { ...personOptions(emailOf('viewer'), token) }
    const wss = stack.urls.wss
    expect(await refusal({ ...asViewer, password: await tokenOf('operator') }, wss)).toBe('not authorized')
    expect(await refusal({ ...asViewer, password: `${token.slice(0, -6)}AAAAAA` }, wss)).toBe('not authorized')
    expect(await refusal({ ...asViewer, clientId: fleet[0]!.id }, wss)).toBe('not authorized')
    expect(await refusal({ ...asViewer, username: emailOf('operator') }, wss)).toBe('not authorized')
  })

  it('who is removed from the organization loses the connection, and what it gave', async () => {
    const token = await tokenOf('leaver')
    const leaver = await person('leaver', token)
    await leaver.subscribeAsync(topics.telemetry(fleet[0]!.id), { qos: 1 })
    const closed = closedOf(leaver)
    await change('DELETE', 'leaver')
    await closed
    const back = await person('leaver', token)
    const closedAgain = closedOf(back)
    back.subscribe(topics.telemetry(fleet[0]!.id))
    await closedAgain
  })

  it('who becomes a viewer loses the connection, and comes back to look and not to command', async () => {
    const token = await tokenOf('demoted')
    const demoted = await person('demoted', token)
    await demoted.publishAsync(topics.command(fleet[0]!.id, randomUUID()), '{"name":"ping"}', { qos: 1 })
    const closed = closedOf(demoted)
    await change('PATCH', 'demoted', { role: 'viewer' })
    await closed
    const back = await person('demoted', token)
    const [granted] = await back.subscribeAsync(topics.telemetry(fleet[0]!.id), { qos: 1 })
    expect(granted?.qos).toBe(1)
    const closedAgain = closedOf(back)
    back.publish(topics.command(fleet[0]!.id, randomUUID()), '{"name":"ping"}', { qos: 1 })
    await closedAgain
  })

  it('the connection ends when the token does', async () => {
    const token = await tokenOf('brief')
    // A token lives for a quarter of an hour, and never longer than the key that signed it.
    const end = new Date(Math.ceil(Date.now() / 1_000) * 1_000 + 5_000)
    const restore = await endOfSessionKeys(end)
    try {
      const brief = await person('brief', token)
      await closedOf(brief)
      expect(Date.now()).toBeGreaterThan(end.getTime() - 1_000)
      expect(await refusal(personOptions(emailOf('brief'), token), stack.urls.wss)).toBe('not authorized')
    } finally {
      await restore()
    }
  })

  async function change(method: 'PATCH' | 'DELETE', name: string, body?: object): Promise<void> {
    const path = `/organizations/${organizationId}/members`
    const { items } = await api.get<{ items: { userId: string; email: string }[] }>(path)
    const { userId } = items.find(({ email }) => email === emailOf(name))!
    const answer = await fetch(`${stack.urls.rest}/api/v1${path}/${userId}`, {
      method,
      headers: { authorization: `Bearer ${await api.accessToken()}`, 'content-type': 'application/json' },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    expect(answer.ok).toBe(true)
  }

  /** Gives the keys that verify tokens another end, and waits until the authorizer knows. @returns a function that takes it back */
  async function endOfSessionKeys(end: Date): Promise<() => Promise<void>> {
    const database = new Client({ connectionString: stack.urls.database })
    locks.push(database)
    await database.connect()
    const { rows: keys } = await database.query('SELECT kid, not_after FROM session_keys')
    const set = async (kid: string, notAfter: Date) => {
      await database.query(
        `WITH key AS (UPDATE session_keys SET not_after = $2 WHERE kid = $1),
              head AS (UPDATE directory_head SET version = version + 1 RETURNING version),
              change AS (INSERT INTO directory_changes (version, kind, id) SELECT version, 'session_key', $1 FROM head)
         SELECT pg_notify('ares_directory', version::text) FROM head`,
        [kid, notAfter],
      )
    }
    for (const { kid } of keys) await set(kid, end)
    const { rows: heads } = await database.query('SELECT version FROM directory_head')
    await until(
      async () => (await metric('authorizer', 'ares_authorizer_directory_version')) >= Number(heads[0].version),
    )
    return async () => {
      for (const { kid, not_after } of keys) await set(kid, not_after)
    }
  }
})

it('the replica of the authorizer is, by its checksum, what the database holds', async () => {
  const comparisons = (result: string) =>
    metric('authorizer', 'ares_authorizer_directory_comparisons_total', `result="${result}"`)
  await until(async () => (await comparisons('equal')) >= 1)
  expect(await comparisons('differs')).toBeNaN()
})

describe('acknowledged means committed', () => {
  it('holds the acknowledgement while the commit hangs, and a listener that is killed then loses nothing', async () => {
    const before = await rowsNow(1)
    const release = await hangCommits()
    const device = await connected(1)
    // The broker has them: that is what its PUBACK says, and all that it says.
    for (let n = 0; n < 20; n++) await publish(device, 1, report(1, stamp(n)))
    await until(async () => (await metric('listener', 'ares_listener_held_messages')) >= 20)
    expect(await rowsNow(1)).toHaveLength(before.length)

    const killed = stack.pidOf('listener')
    stack.kill('listener', 'SIGKILL')
    await until(() => stack.pidOf('listener') !== undefined && stack.pidOf('listener') !== killed)
    await stack.waitUntilReady('listener')
    // None was acknowledged, so all come again.
    await until(async () => (await metric('listener', 'ares_listener_held_messages')) >= 20)
    await release()
    await rows(1, before.length + 20)
    await until(async () => (await metric('listener', 'ares_listener_held_messages')) === 0)
    expect(await rowsNow(1)).toHaveLength(before.length + 20)
  }, 90_000)

  it('with api stopped nothing is acknowledged, and after its return nothing is missing', async () => {
    const before = await rowsNow(1)
    const device = await connected(1)
    await stack.stopPart('api')
    for (let n = 0; n < 30; n++) await publish(device, 1, report(1, stamp(100 + n)))
    await until(async () => (await metric('listener', 'ares_listener_held_messages')) >= 30)
    await sleep(1_000)
    expect(await metric('listener', 'ares_listener_held_messages')).toBe(30)
    await stack.startPart('api')
    await rows(1, before.length + 30)
    await until(async () => (await metric('listener', 'ares_listener_held_messages')) === 0)
    expect(await rowsNow(1)).toHaveLength(before.length + 30)
  }, 90_000)

  it('comes back by itself after kill -9 of api, broker, Vault and PostgreSQL', async () => {
    for (const name of ['api', 'broker', 'vault', 'postgres'] as const) stack.kill(name, 'SIGKILL')
    await sleep(200)
    for (const name of ['postgres', 'vault', 'api', 'broker', 'listener'] as const)
      await stack.waitUntilReady(name, 60_000)
    const before = await rowsNow(2)
    const device = await connected(2)
    await publish(device, 2, report(2, new Date().toISOString()))
    await rows(2, before.length + 1)
  }, 120_000)
})

describe('with the authorizer stopped', () => {
  it('nobody new gets in, and nobody may do what was not allowed before', async () => {
    const admitted = await connected(0)
    const person = await connectedPerson()
    await person.subscribeAsync(topics.telemetry(fleet[0]!.id), { qos: 1 })
    await stack.stopPart('authorizer')

    expect(await refusal({ clientId: fleet[1]!.id, ...tls(identities[1]!) })).toBe('not authorized')
    // A person is asked for at each action, and there is nobody to ask: the connection ends.
    const closed = new Promise<void>((resolve) => person.once('close', resolve))
    person.publish(topics.command(fleet[0]!.id, randomUUID()), '{"name":"ping"}', { qos: 1 })
    await closed

    // A device has its whole list since it was admitted: its own branch goes on, and nothing else.
    const before = await rowsNow(0)
    await publish(admitted, 0, report(0, new Date().toISOString()))
    await rows(0, before.length + 1)
    const thrownOut = new Promise<void>((resolve) => admitted.once('close', resolve))
    admitted.publish(topics.telemetry(fleet[1]!.id), report(1, new Date().toISOString()), { qos: 1 })
    await thrownOut
    expect(await refusal({ clientId: fleet[0]!.id, ...tls(identities[0]!) })).toBe('not authorized')

    await stack.startPart('authorizer')
    await connected(0)
  }, 90_000)
})

// --- what the tests say above, in code

const tls = ({ keyPem, certificatePem, caPem }: Pick<DeviceIdentity, 'keyPem' | 'certificatePem' | 'caPem'>) => ({
  key: keyPem,
  cert: certificatePem,
  ca: caPem,
})

async function connected(index: number): Promise<MqttClient> {
  const options: IClientOptions = {
    clientId: fleet[index]!.id,
    ...tls(identities[index]!),
    protocolVersion: 4,
    clean: true,
    reconnectPeriod: 0,
  }
  // EMQX may not have found its authorizer again yet.
  const giveUpAt = Date.now() + 30_000
  for (;;) {
    try {
      return keep(await mqtt.connectAsync(stack.urls.mqtt, options, false))
    } catch (error) {
      if (Date.now() > giveUpAt) throw error
      await sleep(200)
    }
  }
}

const personOptions = (email: string, password: string): IClientOptions => ({
  clientId: `${email}/e2e`,
  username: email,
  password,
  wsOptions: { ca: readFileSync(stack.caFile) },
  protocolVersion: 4,
  reconnectPeriod: 0,
})

/** Default: the first user. */
async function connectedPerson(email = stack.login.email, token?: string): Promise<MqttClient> {
  const options = personOptions(email, token ?? (await api.accessToken()))
  return keep(await mqtt.connectAsync(stack.urls.wss, options, false))
}

const closedOf = (client: MqttClient): Promise<void> =>
  new Promise((resolve) => (client.connected ? client.once('close', () => resolve()) : resolve()))

function keep(client: MqttClient): MqttClient {
  client.on('error', () => {})
  clients.push(client)
  return client
}

/** How a client is turned away: by the broker's answer, or before that by TLS. */
async function refusal(options: IClientOptions, url = stack.urls.mqtt): Promise<string> {
  const client = keep(mqtt.connect(url, { protocolVersion: 4, reconnectPeriod: 0, connectTimeout: 10_000, ...options }))
  return new Promise((resolve) => {
    client.once('connect', () => resolve('admitted'))
    client.once('error', (error: Error & { code?: number | string }) =>
      resolve(error.code === 5 ? 'not authorized' : 'tls'),
    )
    client.once('close', () => resolve('tls'))
  })
}

/** A certificate that Vault signed without api, so that no device has it. */
async function certifiedBehindTheApi(id: string) {
  const vault = await loginForBootstrap(stack.vault, stack.vault.keyFile)
  const { keyPem, csrPem } = await newKeyAndCsr(deviceCommonName(id))
  const { data } = await vault.write('pki_int/sign/device', { csr: csrPem, common_name: deviceCommonName(id) })
  vault.close()
  return { keyPem, certificatePem: `${data.certificate}\n${data.issuing_ca}\n`, caPem: identities[0]!.caPem }
}

let sequence = 0

function report(index: number, timestamp: string, metrics: object = { temperature: 20 }): string {
  return JSON.stringify({ sequence: ++sequence, component: fleet[index]!.component, timestamp, metrics })
}

/** Instants that differ, a little in the past. */
const stamp = (n: number): string => new Date(Date.now() - 60_000 + n).toISOString()

async function publish(client: MqttClient, index: number, payload: string): Promise<void> {
  await client.publishAsync(topics.telemetry(fleet[index]!.id), payload, { qos: 1 })
}

async function rowsNow(index: number): Promise<readonly TelemetryItem[]> {
  const path = `/devices/${fleet[index]!.id}/telemetry?limit=1000`
  return (await api.get<{ items: TelemetryItem[] }>(path)).items
}

/** Waits for so many rows. */
async function rows(index: number, count: number): Promise<readonly TelemetryItem[]> {
  let found: readonly TelemetryItem[] = []
  await until(async () => {
    found = await rowsNow(index)
    return found.length >= count
  })
  return found
}

/** Lets reads go on and inserts wait. @returns a function that lets them go on, too */
async function hangCommits(): Promise<() => Promise<void>> {
  const lock = new Client({ connectionString: stack.urls.database })
  lock.on('error', () => {})
  locks.push(lock)
  await lock.connect()
  await lock.query('BEGIN')
  await lock.query('LOCK TABLE telemetry IN SHARE ROW EXCLUSIVE MODE')
  return async () => void (await lock.query('COMMIT'))
}

/** @param label of the series, where there are several. @returns NaN when it is not there */
async function metric(part: 'listener' | 'authorizer', name: string, label = ''): Promise<number> {
  try {
    const text = await (await fetch(`${stack.opsUrl(part)}/metrics`)).text()
    const line = text.split('\n').find((each) => /^\w+/.exec(each)?.[0] === name && each.includes(label))
    return Number(line?.split(' ').at(-1) ?? Number.NaN)
  } catch {
    return Number.NaN // it is just being started again
  }
}
