import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import * as https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import * as tls from 'node:tls'
import { createLogger, createMetrics, Health, newKeyAndCsr, ServiceIdentity, serialOf, splitPem } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { type EmbeddedBroker, startEmbeddedBroker } from '@ares/emqx'
import { testEnvironment } from '@ares/emqx/testing'
import { listenerClientId, type ServiceName, topics } from '@ares/proto'
import { agentCredentialsFromBootstrap, CertsVolume, VaultAgent } from '@ares/vault'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { connect, type MqttClient } from 'mqtt'
import type { ListenerConfig } from './config'
import { connectApi } from './context'
import { ListenerService } from './service'
import { report } from './testing/listener-bench'
import { commitAll, quietLogger, TestApi } from './testing/test-api'

/**
 * Certificates that end after seconds, from a real OpenBao: of the listener (client of the broker and of api), of api's
 * gRPC server and of the broker. The embedded broker tells its authn hook which certificate it saw, as EMQX does.
 */
const CLIENT_ID = listenerClientId('0000000a')

let vault: TestVault
let volume: CertsVolume
let caPem: string
let agent: VaultAgent
let broker: EmbeddedBroker
let hooks: AuthnHooks
let api: TestApi
let apiPort: number
let identities: { readonly api: ServiceIdentity; readonly listener: ServiceIdentity }
let listener: ListenerService
let deviceTls: { ca: string; cert: string; key: string }
const health = new Health()
const clients: MqttClient[] = []

beforeAll(async () => {
  vault = await startTestVault()
  volume = new CertsVolume({ dir: vault.certsDir })
  caPem = await readFile(volume.caFile, 'utf8')
  agent = await VaultAgent.start({
    ...vault,
    credentials: agentCredentialsFromBootstrap(vault, vault.keyFile),
    renewEveryMs: 100,
    logger: createLogger({ service: 'vault-agent', level: 'error' }),
  })
  hooks = await AuthnHooks.start(await signed('service', 'authorizer.service.ares4.internal'))
  await writeFile(join(vault.serverDir, 'api-keys'), 'ares:secret:administrator\n')
  broker = await startEmbeddedBroker({
    confFile: join(__dirname, '../../../emqx/emqx.conf'),
    env: brokerEnvironment(),
    certificatePollMs: 100,
  })
  identities = { api: await identity('api', '10s'), listener: await identity('listener', '7s', health) }
  api = new TestApi(identities.api)
  apiPort = await api.start()
  listener = startListener(health)
  await listener.start()
  await until(async () => (await health.report()).checks.mqtt?.ok === true, 'the listener is subscribed')
  const { certPem, keyPem } = await signed('device', 'd1.device.ares4.internal')
  deviceTls = { ca: caPem, cert: certPem, key: keyPem }
}, 120_000)

afterAll(async () => {
  await Promise.all(clients.map((client) => client.endAsync(true)))
  await listener?.stop()
  await api?.stop()
  await identities?.api.stop()
  await broker?.stop()
  await hooks?.stop()
  await agent?.stop()
  await vault?.stop()
}, 60_000)

const committed = (): number[] => api.payloads.map((payload) => JSON.parse(payload).sequence)

it('messages flow through four renewals of each side: none is lost, and the broker sees each new certificate', async () => {
  const device = await connected()
  const apiSerials = new Set<string>()
  let sent = 0
  let failed = 0
  const flow = setInterval(() => {
    device.publishAsync(topics.telemetry('d1'), report(sent++), { qos: 1 }).catch(() => failed++)
  }, 40)
  const look = setInterval(() => {
    shownSerial(apiPort, 'api.service.ares4.internal').then(
      (serial) => apiSerials.add(serial),
      () => undefined,
    )
  }, 500)
  await until(() => hooks.serialsOf(CLIENT_ID).length >= 5 && apiSerials.size >= 4, 'four renewals', 60_000)
  clearInterval(flow)
  clearInterval(look)
  await until(() => new Set(committed()).size === sent, 'all are committed')
  expect(failed).toBe(0)
  expect(hooks.serialsOf(CLIENT_ID).at(-1)).toBe(identities.listener.current().serial)
  expect(new Set(hooks.serialsOf(CLIENT_ID)).size).toBe(hooks.serialsOf(CLIENT_ID).length)
  await until(
    async () => (await shownSerial(apiPort, 'api.service.ares4.internal')) === identities.api.current().serial,
    'api shows its newest',
  )
  // No acknowledgement was lost either: a message whose PUBACK did not arrive would have come a second time.
  expect(committed()).toHaveLength(sent)
}, 90_000)

it('what is held at the renewal is committed and acknowledged on the old connection, and does not come again', async () => {
  const device = await connected()
  api.committed.length = 0
  const begun = api.calls.length
  let release: () => void = () => undefined
  const commit = new Promise<void>((resolve) => {
    release = resolve
  })
  api.answer = async (request) => {
    await commit
    return commitAll(request)
  }
  await Promise.all(
    Array.from({ length: 50 }, (_, n) => device.publishAsync(topics.telemetry('d1'), report(n), { qos: 1 })),
  )
  await until(() => api.calls.length > begun, 'they came to api')
  const connections = hooks.serialsOf(CLIENT_ID).length
  await identities.listener.renew()
  // The listener waits for the commit: it does not leave with acknowledgements in its hand.
  await new Promise((resolve) => setTimeout(resolve, 500))
  expect(hooks.serialsOf(CLIENT_ID)).toHaveLength(connections)
  release()
  api.answer = commitAll
  await until(
    () => hooks.serialsOf(CLIENT_ID).at(-1) === identities.listener.current().serial,
    'the broker saw the new one',
  )
  await until(async () => (await health.report()).checks.mqtt?.ok === true, 'the listener is up')
  await device.publishAsync(topics.telemetry('d1'), report(50), { qos: 1 })
  await until(() => committed().includes(50), 'the next message is committed')
  expect(committed().sort((a, b) => a - b)).toEqual(Array.from({ length: 51 }, (_, n) => n))
}, 60_000)

it("the broker's certificate is renewed by the agent and taken up without a restart; live connections stay", async () => {
  const device = await connected()
  let closed = 0
  device.on('close', () => closed++)
  const before = await shownSerial(broker.ports.devices, 'localhost')
  expect(before).toBe(serialOf(splitPem((await volume.readBroker())!.chainPem)[0]!))

  // One that is near its end: the agent sees it at its next look and makes another.
  const short = await signed('broker', 'broker.ares4.internal', { ttl: '60s' })
  await volume.writeBroker({ keyPem: short.keyPem, chainPem: short.certPem })
  const shortSerial = serialOf(splitPem(short.certPem)[0]!)
  const onDisk = async () => serialOf(splitPem((await volume.readBroker())!.chainPem)[0]!)
  await until(async () => ![before, shortSerial].includes(await onDisk()), 'the agent has made another')
  const renewed = await onDisk()
  for (const port of [broker.ports.devices, broker.ports.services, broker.ports.users]) {
    await until(async () => (await shownSerial(port, 'localhost')) === renewed, 'new handshakes see it')
  }
  await device.publishAsync(topics.telemetry('d1'), report(1_000), { qos: 1 })
  await until(() => committed().includes(1_000), 'the old connection works')
  expect(closed).toBe(0)
  // Nobody was turned away meanwhile, and the broker shows its new certificate to the webhook as well.
  await connected()
  await until(() => hooks.brokerSerials.at(-1) === renewed, 'the webhook saw it')
}, 60_000)

async function identity(name: ServiceName, ttl: string, ownHealth = new Health()): Promise<ServiceIdentity> {
  return ServiceIdentity.create({
    name,
    ttl,
    vaultAddress: vault.address,
    vaultCaPem: vault.caPem,
    caPem,
    caFile: volume.caFile,
    credentials: vault.credentials(name),
    logger: quietLogger(),
    health: ownHealth,
    metrics: createMetrics(name),
  })
}

function startListener(ownHealth: Health): ListenerService {
  const config: ListenerConfig = {
    logLevel: 'error',
    opsBind: { host: '127.0.0.1', port: 0 },
    grpcBind: { host: '127.0.0.1', port: 0 },
    vault: { address: 'unused', credentials: 'unused' },
    caFile: 'unused',
    apiAddress: `127.0.0.1:${apiPort}`,
    mqtt: {
      url: `mqtts://localhost:${broker.ports.services}`,
      version: 'auto',
      clientId: CLIENT_ID,
      sessionExpiryMs: 60_000,
      receiveMaximum: 2_000,
      maxHeldBytes: 64 * 1024 * 1024,
      leaveGroup: false,
    },
    batch: { maxItems: 500, maxBytes: 1_048_576, maxAgeMs: 20, maxInFlight: 3, retryFirstMs: 20, retryMaxMs: 200 },
    commitDeadlineMs: 10_000,
    standAsideAfterMs: 10_000,
    drainMs: 3_000,
    heldAlarmMs: 30_000,
  }
  return new ListenerService({
    config,
    logger: quietLogger(),
    health: ownHealth,
    metrics: createMetrics('listener'),
    identity: identities.listener,
    api: connectApi(config.apiAddress, identities.listener),
  })
}

async function connected(): Promise<MqttClient> {
  const client = connect(`mqtts://localhost:${broker.ports.devices}`, {
    protocolVersion: 4,
    clientId: 'd1',
    clean: true,
    reconnectPeriod: 0,
    ...deviceTls,
  })
  for (const old of clients.splice(0)) await old.endAsync(true)
  clients.push(client)
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve())
    client.once('error', reject)
  })
  return client
}

async function signed(
  role: 'service' | 'device' | 'broker',
  common_name: string,
  more: { readonly ttl?: string } = {},
): Promise<{ keyPem: string; certPem: string }> {
  const { keyPem, csrPem } = await newKeyAndCsr(common_name)
  const names = {
    service: { alt_names: `${common_name},localhost`, ip_sans: '127.0.0.1' },
    broker: { alt_names: 'broker.ares4.internal,emqx,localhost', ip_sans: '127.0.0.1' },
    device: {},
  }[role]
  const { data } = await vault.adminClient.write(`pki_int/sign/${role}`, {
    csr: csrPem,
    common_name,
    ...names,
    ...more,
  })
  return { keyPem, certPem: `${data.certificate}\n${data.issuing_ca}\n` }
}

/** The serial that a server shows in a handshake of its own. */
async function shownSerial(port: number, servername: string): Promise<string> {
  // gRPC speaks under the name of h2 alone.
  const ALPNProtocols = port === apiPort ? ['h2'] : []
  const socket = tls.connect({ port, host: '127.0.0.1', servername, ...deviceTls, ALPNProtocols })
  socket.on('error', () => undefined)
  try {
    await once(socket, 'secureConnect')
    return serialOf(socket.getPeerX509Certificate()!)
  } finally {
    socket.destroy()
  }
}

const brokerEnvironment = (): Record<string, string> =>
  testEnvironment({
    files: { ca: volume.caFile, cert: volume.brokerCertificateFile, key: volume.brokerKeyFile },
    apiKeysFile: join(vault.serverDir, 'api-keys'),
    hookPort: hooks.port,
    hookName: 'authorizer.service.ares4.internal',
  })

/** An authorizer that lets everybody do everything until his certificate ends, and writes down which he showed. */
class AuthnHooks {
  private readonly seen: Array<{ readonly clientId: string; readonly serial: string }> = []
  readonly brokerSerials: string[] = []

  private constructor(private readonly server: https.Server) {}

  static async start(own: { keyPem: string; certPem: string }): Promise<AuthnHooks> {
    const server = https.createServer({
      cert: own.certPem,
      key: own.keyPem,
      ca: caPem,
      requestCert: true,
      rejectUnauthorized: true,
    })
    const hooks = new AuthnHooks(server)
    server.on('request', (request, response) => {
      const broker = (request.socket as tls.TLSSocket).getPeerX509Certificate()
      if (broker) hooks.brokerSerials.push(serialOf(broker))
      let text = ''
      request.on('data', (part) => {
        text += part
      })
      request.on('end', () => {
        response.setHeader('content-type', 'application/json')
        response.end(JSON.stringify(hooks.answer(JSON.parse(text))))
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return hooks
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  /** Of the certificates that a client came with, in their order. */
  serialsOf(clientId: string): string[] {
    return this.seen.filter((each) => each.clientId === clientId).map(({ serial }) => serial)
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    this.server.closeAllConnections()
    await closed
  }

  private answer(body: { clientid: string; cert_pem?: string }): object {
    if (!body.cert_pem) return { result: 'allow' }
    const certificate = new X509Certificate(Buffer.from(body.cert_pem, 'base64'))
    this.seen.push({ clientId: body.clientid, serial: serialOf(certificate) })
    return { result: 'allow', expire_at: Math.floor(Date.parse(certificate.validTo) / 1_000) }
  }
}
