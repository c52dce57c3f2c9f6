import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '@ares/chassis/testing'
import { type ApiClient, type DeviceIdentity, enroll, type FleetDevice, provisionFleet } from '@ares/simulator'
import mqtt, { type MqttClient } from 'mqtt'
import { Client } from 'pg'
import { type Stack, startStack } from './stack'

/** Cutting devices off, on the stack as it runs. ARES_TEST_EMQX="command" puts a real EMQX in the broker's place. */
let stack: Stack
let api: ApiClient
let organizationId: string
let fleet: FleetDevice[]
const clients: MqttClient[] = []

beforeAll(async () => {
  stack = await startStack({
    stateDir: mkdtempSync(join(tmpdir(), 'ares-revocation-')),
    ports: { http: 0, mqtt: 0, wss: 0 },
    emqx: process.env.ARES_TEST_EMQX,
    postgresSettings: { fsync: 'off', full_page_writes: 'off' },
  })
  api = stack.client()
  fleet = await provisionFleet(api, { organization: 'E2E', blueprint: 'Node', devices: 6, prefix: 'node' })
  organizationId = (await api.get<{ organizationId: string }>(`/devices/${fleet[0]!.id}`)).organizationId
}, 150_000)
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.endAsync(true)))
})
afterAll(async () => {
  await stack?.stop()
  stack?.state.remove()
}, 60_000)

it('a revoked certificate is off the wire and does not come back; another device notices nothing', async () => {
  const identity = await enroll(api, fleet[0]!.id)
  const device = await connected(0, identity)
  const other = await connected(1, await enroll(api, fleet[1]!.id))
  const closed = closedOf(device)
  const revocation = await revoke(0, identity)
  expect(revocation.state).not.toBe('unfinished')
  await closed
  expect(await isAdmitted(0, identity)).toBe(false)
  expect(other.connected).toBe(true)
  await finished(revocation.id)
  expect(await isAdmitted(0, identity)).toBe(false)
})

it('a device with another good certificate comes back with that one', async () => {
  const [old, fresh] = [await enroll(api, fleet[2]!.id), await enroll(api, fleet[2]!.id)]
  const closed = closedOf(await connected(2, old))
  const { id } = await revoke(2, old)
  await closed
  expect(await isAdmitted(2, old)).toBe(false)
  await finished(id)
  expect(await isAdmitted(2, fresh)).toBe(true)
})

it('a disabled device is cut off, and comes back after it was enabled, with the certificate it kept', async () => {
  const identity = await enroll(api, fleet[3]!.id)
  const closed = closedOf(await connected(3, identity))
  const { id } = await api.post<Revocation>(`/devices/${fleet[3]!.id}/disable`, { keepCertificates: true })
  await closed
  expect(await isAdmitted(3, identity)).toBe(false)
  await finished(id)
  await api.post(`/devices/${fleet[3]!.id}/enable`, {})
  await until(() => isAdmitted(3, identity), 'it is admitted', PATIENCE_MS)
})

it('api is killed while it revokes: after its restart the device is off, and everything is done', async () => {
  for (const delayMs of [0, 15, 40]) {
    const identity = await enroll(api, fleet[4]!.id)
    await until(() => isAdmitted(4, identity), 'it is admitted', PATIENCE_MS)
    const device = await connected(4, identity)
    const closed = closedOf(device)
    const call = revoke(4, identity).catch(() => undefined)
    // Until the plan is written there is nothing that could be gone on with.
    await until(async () => (await plans(identity.serial)) > 0, 'the plan', PATIENCE_MS)
    await sleep(delayMs)
    stack.kill('api', 'SIGKILL')
    await call
    await closed
    await stack.waitUntilReady('api', 60_000)
    await until(async () => (await plans(identity.serial, 'finished_at IS NOT NULL')) > 0, 'its end', PATIENCE_MS)
    expect(await isAdmitted(4, identity)).toBe(false)
  }
}, 180_000)

it('the broker is away: the call says so, and the device is off when the broker is back', async () => {
  const identity = await enroll(api, fleet[5]!.id)
  await connected(5, identity)
  await stack.stopPart('broker')
  const revocation = await revoke(5, identity)
  expect(revocation.state).toBe('unfinished')
  expect(revocation.steps.find(({ step }) => step === 'kick')).toMatchObject({
    doneAt: null,
    error: expect.stringContaining('The broker cannot be managed now'),
  })
  await stack.startPart('broker')
  await finished(revocation.id)
  expect(await isAdmitted(5, identity)).toBe(false)
}, 120_000)

// --- what the tests say above, in code

const PATIENCE_MS = 60_000

interface Revocation {
  readonly id: string
  readonly state: 'unfinished' | 'effective' | 'finished'
  readonly steps: ReadonlyArray<{ readonly step: string; readonly doneAt: string | null; readonly error?: string }>
}

const revoke = (index: number, { serial }: DeviceIdentity): Promise<Revocation> =>
  api.post(`/devices/${fleet[index]!.id}/certificates/${serial}/revoke`, { reason: 'test' })

async function finished(id: string): Promise<void> {
  const path = `/organizations/${organizationId}/revocations/${id}`
  await until(async () => (await api.get<Revocation>(path)).state === 'finished', 'its end', PATIENCE_MS)
}

/** How many plans for a serial are in the database. */
async function plans(serial: string, where = 'true'): Promise<number> {
  const client = new Client({ connectionString: stack.urls.database })
  await client.connect()
  const { rowCount } = await client.query(`SELECT 1 FROM revocations WHERE $1 = ANY (serials) AND ${where}`, [serial])
  await client.end()
  return rowCount ?? 0
}

function connect(index: number, { keyPem, certificatePem, caPem }: DeviceIdentity): Promise<MqttClient> {
  const options = { key: keyPem, cert: certificatePem, ca: caPem, protocolVersion: 4, reconnectPeriod: 0 } as const
  return mqtt.connectAsync(stack.urls.mqtt, { ...options, clientId: fleet[index]!.id, connectTimeout: 10_000 }, false)
}

async function connected(index: number, identity: DeviceIdentity): Promise<MqttClient> {
  const client = await until(() => connect(index, identity).catch(() => undefined), 'it is connected', PATIENCE_MS)
  client.on('error', () => {})
  clients.push(client)
  return client
}

async function isAdmitted(index: number, identity: DeviceIdentity): Promise<boolean> {
  const client = await connect(index, identity).catch(() => undefined)
  await client?.endAsync(true)
  return client !== undefined
}

const closedOf = (client: MqttClient): Promise<void> => new Promise((resolve) => client.once('close', () => resolve()))
