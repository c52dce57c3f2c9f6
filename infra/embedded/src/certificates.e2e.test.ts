import { mkdtempSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newKeyAndCsr } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import {
  type ApiClient,
  type DeviceIdentity,
  type IssuedCertificate,
  identityOf,
  SimulatedDevice,
  type TelemetryItem,
} from '@ares/simulator'
import { issueWrappedSecretId, loginForBootstrap, readVaultKeys } from '@ares/vault'
import mqtt from 'mqtt'
import { Client } from 'pg'
import { secretsOf } from './first-login'
import { postgresFolder } from './postgres'
import { searchFiles, writingsOf } from './secret-search'
import { Stack } from './stack'
import { VaultRecorder } from './testing/vault-recorder'

/**
 * The life of a device's certificate in the running stack: it comes in by itself, renews, and what was secret on the way
 * is on no disk and in no log.
 */
let stack: Stack
let recorder: VaultRecorder
let api: ApiClient
let organizationId: string
let blueprintId: string
const devices: SimulatedDevice[] = []
/** Everything that the test has seen and nobody else may. */
const secrets = new Map<string, string>()
const privateKeys: string[] = []

beforeAll(async () => {
  recorder = await VaultRecorder.start(() => stack.vault)
  const stateDir = mkdtempSync(join(tmpdir(), 'ares-certificates-'))
  const recorderCa = join(stateDir, 'recorder-ca.crt')
  writeFileSync(recorderCa, recorder.caPem)
  const debug = { ARES_LOG_LEVEL: 'debug', ARES_VAULT_ADDR: recorder.address, ARES_VAULT_CA_FILE: recorderCa }
  stack = new Stack({
    stateDir,
    ports: { http: 0, mqtt: 0, wss: 0 },
    env: { api: debug, listener: debug, authorizer: debug },
    postgresSettings: { fsync: 'off', full_page_writes: 'off' },
  })
  await stack.start()
  api = stack.client()
  organizationId = (await api.post<{ id: string }>('/organizations', { name: 'Factory' })).id
  const blueprints = `/organizations/${organizationId}/blueprints`
  blueprintId = (await api.post<{ id: string }>(blueprints, { name: 'Node' })).id
  await api.post(`/blueprints/${blueprintId}/components`, {
    name: 'dht22',
    metrics: [
      { name: 'temperature', kind: 'number' },
      { name: 'humidity', kind: 'number' },
      { name: 'heater_on', kind: 'boolean' },
    ],
  })
}, 150_000)

afterAll(async () => {
  await Promise.all(devices.map((device) => device.stop()))
  await stack?.stop()
  await recorder?.stop()
  stack?.state.remove()
}, 60_000)

interface Enrolled {
  readonly deviceId: string
  readonly components: readonly string[]
  readonly certificate: IssuedCertificate
}

/** As a device does it: nothing but a token, a serial number and a key of its own. */
async function comeIn(serialNumber: string): Promise<{ enrolled: Enrolled; identity: DeviceIdentity }> {
  const path = `/organizations/${organizationId}/enrollment-tokens`
  const { token } = await api.post<{ token: string }>(path, { name: serialNumber, blueprintId })
  secrets.set(`the enrollment token of ${serialNumber}`, token)
  const { keyPem, csrPem } = await newKeyAndCsr(serialNumber)
  privateKeys.push(keyPem)
  const answer = await fetch(`${stack.urls.rest}/api/v1/enrollments`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token, serialNumber, csr: csrPem }),
  })
  expect(answer.status).toBe(201)
  const enrolled = (await answer.json()) as Enrolled
  return { enrolled, identity: identityOf(keyPem, enrolled.certificate) }
}

function startDevice({ enrolled, identity }: Awaited<ReturnType<typeof comeIn>>, name: string): SimulatedDevice {
  const [component = ''] = enrolled.components
  const member = { id: enrolled.deviceId, name, component }
  const device = new SimulatedDevice(member, identity, {
    mqttUrl: stack.urls.mqtt,
    intervalMs: 0,
    log: process.env.ARES_TEST_LOG ? (line) => process.stderr.write(`${line}\n`) : undefined,
  })
  devices.push(device)
  device.start()
  return device
}

/** More than half of their lives is over. */
async function age(deviceId: string): Promise<void> {
  const client = new Client({ connectionString: stack.urls.database })
  await client.connect()
  await client.query(`UPDATE certificates SET created_at = now() - interval '40 days' WHERE device_id = $1`, [deviceId])
  await client.end()
}

const certificates = async (deviceId: string) =>
  (await api.get<{ items: Array<{ serial: string; state: string }> }>(`/devices/${deviceId}/certificates`)).items

it('a device comes in by itself, renews while it reports, and loses nothing; the old certificate is out then', async () => {
  const first = await comeIn('SN-0001')
  const { deviceId } = first.enrolled
  const device = startDevice(first, 'renewing')
  await until(() => device.stats().online)
  await age(deviceId)

  const began = Date.now() - 60_000
  let made = 0
  const reporting = setInterval(() => device.report(new Date(began + made++)), 5)
  try {
    await until(() => device.stats().committed > 20)
    await device.renew()
    await until(() => device.stats().renewed === 1)
    await until(() => device.stats().committed > 200)
  } finally {
    clearInterval(reporting)
  }
  await until(() => device.stats().waiting === 0)
  expect(device.stats()).toMatchObject({ made, committed: made, refused: 0, dropped: 0, renewed: 1 })
  expect(await rowCount(deviceId)).toBe(made)

  // The authorizer has reported the connection, and api has drawn the conclusion.
  await until(async () => (await certificates(deviceId)).some(({ state }) => state === 'retired'))
  expect(await certificates(deviceId)).toMatchObject([
    { serial: device.certificateSerial, state: 'active' },
    { serial: first.identity.serial, state: 'retired' },
  ])
  await until(async () => (await connects(deviceId, first.identity)) === 'refused')
}, 90_000)

it('a device that asks twice at once ends with one new certificate', async () => {
  const first = await comeIn('SN-0002')
  const { deviceId } = first.enrolled
  const device = startDevice(first, 'twice')
  await until(() => device.stats().online)
  await age(deviceId)
  await Promise.all([device.renew(), device.renew()])
  await until(() => device.stats().renewed === 1)
  await until(async () => (await certificates(deviceId)).some(({ state }) => state === 'retired'))
  expect((await certificates(deviceId)).map(({ state }) => state)).toEqual(['active', 'retired'])
  device.report()
  await until(() => device.stats().committed === 1)
}, 60_000)

it('the fleet doctor can look at everything: database, connections, broker, CAs, Vault', async () => {
  const diagnosis = await api.get<{ items: Array<{ code: string; cause: string }>; skipped: object[] }>(
    '/fleet/findings',
  )
  expect(diagnosis.skipped).toEqual([])
  expect(diagnosis.items.map(({ code }) => code)).toEqual([])
})

/** What may lie on the disk, the only places where, and who may read those. */
const ALLOWED: ReadonlyArray<{ readonly path: string; readonly mode: number; readonly what: readonly string[] }> = [
  { path: 'certs/emqx/emqx.key', mode: 0o640, what: ['a private key (PEM)'] },
  { path: 'vault/tls/server.key', mode: 0o600, what: ['a private key (PEM)'] },
  { path: 'first-login.json', mode: 0o600, what: ['the first password'] },
  {
    path: 'vault/keys.json',
    mode: 0o600,
    what: [
      'the unseal key of Vault',
      'the bootstrap secret id of Vault',
      'the bootstrap role id of Vault',
      'a secret id',
    ],
  },
  { path: 'emqx-api-keys', mode: 0o640, what: ['the secret of the management API'] },
  { path: 'secrets.json', mode: 0o600, what: ['the cookie of the broker'] },
  { path: 'postgres/password', mode: 0o600, what: ['the password of PostgreSQL'] },
]

it('no private key, token, secret id or password is on the disk or in a log, but where it has to be', async () => {
  await collectSecrets()
  await Promise.all(devices.splice(0).map((device) => device.stop()))
  await stack.stop()
  await recorder.stop()
  const needles = new Map([...secrets].map(([name, text]) => [name, writingsOf(text)]))
  for (const [what, texts] of recorder.secrets()) {
    // Three services have logged in, each with an opened secret id of its own.
    expect([what, texts.length >= 3]).toEqual([what, true])
    needles.set(what, texts.flatMap(writingsOf))
  }
  // A key of a device in any writing: with its line ends, with those of JSON, its middle alone, or its bytes.
  needles.set(
    'the key of a device',
    privateKeys.map(middleOf).flatMap((line) => [line, bytesOf(line)]),
  )
  const postgres = postgresFolder(stack.state.postgres)
  const found = await searchFiles([stack.state.path], needles, SHAPES)
  const inPostgres = postgres === stack.state.postgres ? [] : (await searchFiles([postgres], needles, SHAPES)).hits
  const hits = [...found.hits, ...inPostgres.map(({ what, path }) => ({ what, path: `postgres/${path}` }))]
  expect(found.files).toBeGreaterThan(20)
  const isAllowed = ({ what, path }: { what: string; path: string }) =>
    ALLOWED.some((place) => place.path === path && place.what.includes(what))
  expect(hits.filter((hit) => !isAllowed(hit))).toEqual([])
  // The search finds what is there: else it would prove nothing.
  for (const { path, mode, what } of ALLOWED) {
    for (const each of what) expect(hits).toContainEqual({ what: each, path })
    const file = path.startsWith('postgres/') ? join(postgres, path.slice('postgres/'.length)) : stack.state.at(path)
    expect([path, (statSync(file).mode & 0o777).toString(8)]).toEqual([path, mode.toString(8)])
  }
}, 120_000)

/** For what nobody here has seen. */
const SHAPES = {
  'a private key (PEM)': /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  'a token of Vault': /\b(?:hv[sbr]\.[\w-]{20,}|[sbr]\.[A-Za-z0-9]{24})\b/,
  'a token of a person': /\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}/,
  'a secret id': /"?secret_?id"?\s*[:=]\s*"?[0-9a-f]{8}-[0-9a-f]{4}-/i,
}

async function collectSecrets(): Promise<void> {
  const { email, password } = stack.login
  secrets.set('the first password', password)
  secrets.set('the access token', await api.accessToken())
  const session = await fetch(`${stack.urls.rest}/api/v1/sessions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  secrets.set('the refresh token', ((await session.json()) as { refreshToken: string }).refreshToken)
  secrets.set('the password of PostgreSQL', decodeURIComponent(new URL(stack.urls.database).password))
  secrets.set('the cookie of the broker', secretsOf(stack.state).cookie)

  const keys = await readVaultKeys(stack.vault.keyFile)
  secrets.set('the unseal key of Vault', keys?.unsealKey ?? '')
  secrets.set('the bootstrap secret id of Vault', keys?.bootstrap?.secretId ?? '')
  secrets.set('the bootstrap role id of Vault', keys?.bootstrap?.roleId ?? '')
  const bootstrap = await loginForBootstrap(stack.vault, stack.vault.keyFile)
  secrets.set('the bootstrap token of Vault', bootstrap.token ?? '')
  const management = await bootstrap.read('kv/data/ares/emqx-management')
  const { secret } = (management?.data.data ?? {}) as { secret: string }
  secrets.set('the secret of the management API', secret)
  // One that nobody has opened: it lies there as it was delivered.
  secrets.set('a wrapping token', (await issueWrappedSecretId(bootstrap, 'listener')).wrapToken)
  bootstrap.close()
  for (const [name, text] of secrets) expect([name, text.length > 9]).toEqual([name, true])
}

/** The part of a PEM key that is its own: without the frame, which all keys have. */
function middleOf(keyPem: string): string {
  const lines = keyPem.trim().split('\n')
  return lines[2] ?? ''
}

/** What a line of PEM says, as it would stand in a file that is not text. */
const bytesOf = (line: string): string => Buffer.from(line, 'base64').toString('latin1')

async function rowCount(deviceId: string): Promise<number> {
  const path = `/devices/${deviceId}/telemetry?limit=1000`
  return (await api.get<{ items: TelemetryItem[] }>(path)).items.length
}

async function connects(clientId: string, { keyPem, certificatePem, caPem }: DeviceIdentity): Promise<string> {
  const tls = { key: keyPem, cert: certificatePem, ca: caPem }
  const client = mqtt.connect(stack.urls.mqtt, { clientId, ...tls, protocolVersion: 4, reconnectPeriod: 0 })
  const result = await new Promise<string>((resolve) => {
    client.once('connect', () => resolve('admitted'))
    client.once('error', () => resolve('refused'))
    client.once('close', () => resolve('closed'))
  })
  await client.endAsync(true)
  return result
}
