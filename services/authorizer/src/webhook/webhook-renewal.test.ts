import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { connect } from 'node:tls'
import { createLogger, createMetrics, Health, ServiceIdentity, serialOf } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { CertsVolume } from '@ares/vault'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { WebhookServer } from './webhook-server'

/** The webhook with a certificate from a real OpenBao, asked by the broker's own certificate. */
let vault: TestVault
let identity: ServiceIdentity
let server: WebhookServer
let tls: { ca: string; cert: string; key: string; servername: string }
const logger = createLogger({ service: 'authorizer', level: 'error' })

beforeAll(async () => {
  vault = await startTestVault()
  const volume = new CertsVolume({ dir: vault.certsDir })
  const ca = await readFile(volume.caFile, 'utf8')
  const broker = (await volume.readBroker())!
  tls = { ca, cert: broker.chainPem, key: broker.keyPem, servername: 'authorizer.service.ares4.internal' }
  identity = await ServiceIdentity.create({
    name: 'authorizer',
    vaultAddress: vault.address,
    vaultCaPem: vault.caPem,
    caPem: ca,
    credentials: vault.credentials('authorizer'),
    logger,
    health: new Health(),
    metrics: createMetrics('authorizer'),
  })
  server = await WebhookServer.start({
    identity,
    bind: { host: '127.0.0.1', port: 0 },
    logger,
    hooks: { '/mqtt/authz': () => '{"result":"allow"}' },
    onRefused: () => undefined,
  })
}, 120_000)

afterAll(async () => {
  await server?.stop()
  await identity?.stop()
  await vault?.stop()
}, 30_000)

it('is asked without a break through three renewals; new handshakes show the new certificate, old connections stay', async () => {
  const pool = new Agent({ keepAlive: true, maxSockets: 4, ...tls })
  const opened = new Set<unknown>()
  const shown = new Set<string>()
  let asked = 0
  let allowed = 0
  const failures: unknown[] = []
  const end = { now: false }
  const askOn = async () => {
    while (!end.now) {
      asked++
      await ask(pool, (socket) => opened.add(socket)).then(
        (answer) => answer === '{"result":"allow"}' && allowed++,
        (error) => failures.push(error),
      )
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  const asking = Promise.all([askOn(), askOn(), askOn(), askOn()])
  shown.add(await shownSerial())
  for (let renewal = 1; renewal <= 3; renewal++) {
    await until(() => allowed >= renewal * 50, 'answers with this certificate', 40_000)
    await identity.renew()
    shown.add(await shownSerial())
  }
  expect(shown.size).toBe(4)
  end.now = true
  await asking
  expect(failures).toEqual([])
  expect(allowed).toBe(asked)
  expect(opened.size).toBe(4) // the connections of the first second served to the end
  expect(await shownSerial()).toBe(identity.current().serial)
  pool.destroy()
}, 60_000)

function ask(pool: Agent, onSocket: (socket: unknown) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const body = '{}'
    const asked = request(
      {
        host: '127.0.0.1',
        port: server.port,
        path: '/mqtt/authz',
        method: 'POST',
        agent: pool,
        headers: { 'content-type': 'application/json', 'content-length': body.length },
      },
      (response) => {
        let text = ''
        response.on('data', (part) => {
          text += part
        })
        response.on('end', () => resolve(text))
      },
    )
    asked.on('socket', onSocket)
    asked.on('error', reject)
    asked.end(body)
  })
}

async function shownSerial(): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port: server.port, ...tls })
  await once(socket, 'secureConnect')
  const serial = serialOf(socket.getPeerX509Certificate()!)
  socket.destroy()
  return serial
}
