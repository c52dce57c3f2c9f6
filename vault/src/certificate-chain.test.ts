import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { connect, createServer } from 'node:tls'
import { newKeyAndCsr, splitPem } from '@ares/chassis'
import { startTestVault, type TestVault } from './testing/test-vault'

// Lesson: a broker that sends its leaf alone, or a CA file without the intermediate, and every handshake fails.
let vault: TestVault
let root: string
let bundle: string
let broker: { cert: string; key: string }
let device: { cert: string; chain: string; key: string }

beforeAll(async () => {
  vault = await startTestVault()
  const read = (name: string) => readFile(path.join(vault.certsDir, name), 'utf8')
  bundle = await read('ca/full_chain_ca.crt')
  root = splitPem(bundle)[0]!
  broker = { cert: await read('emqx/emqx.crt'), key: await read('emqx/emqx.key') }

  const { keyPem, csrPem } = await newKeyAndCsr('ignored')
  const common_name = 'd1.device.ares4.internal'
  const { data } = await vault.adminClient.write('pki_int/sign/device', { csr: csrPem, common_name })
  const [leaf, intermediate] = [String(data.certificate), String(data.issuing_ca)]
  device = { cert: leaf, chain: `${leaf}\n${intermediate}\n`, key: keyPem }
}, 60_000)

afterAll(() => vault?.stop())

it('the CA file holds the root and the intermediate, the broker file its leaf and the intermediate', () => {
  const [, intermediate] = splitPem(bundle)
  expect(splitPem(bundle)).toHaveLength(2)
  expect(splitPem(broker.cert)).toHaveLength(2)
  expect(splitPem(broker.cert)[1]).toBe(intermediate)
})

it('a device that knows the root alone accepts the broker, and the broker a device that sends its leaf alone', async () => {
  expect(
    await handshake({ serverCert: broker.cert, serverTrusts: bundle, clientCert: device.cert, clientTrusts: root }),
  ).toEqual({
    client: 'accepted',
    server: 'accepted',
  })
})

it('without the intermediate in emqx.crt such a device refuses the broker', async () => {
  const leafAlone = splitPem(broker.cert)[0]!
  const { client } = await handshake({
    serverCert: leafAlone,
    serverTrusts: root, // OpenSSL would complete its own chain from what it trusts; other servers do not
    clientCert: device.chain,
    clientTrusts: root,
  })
  expect(client).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE')
})

it('without the intermediate in full_chain_ca.crt the broker refuses such a device', async () => {
  const { server } = await handshake({
    serverCert: broker.cert,
    serverTrusts: root,
    clientCert: device.cert,
    clientTrusts: root,
  })
  expect(server).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE')
})

it('without the root in full_chain_ca.crt it refuses every device', async () => {
  const [, intermediate] = splitPem(bundle)
  const { server } = await handshake({
    serverCert: broker.cert,
    serverTrusts: intermediate!,
    clientCert: device.chain,
    clientTrusts: root,
  })
  expect(server).toBe('UNABLE_TO_GET_ISSUER_CERT')
})

interface Parties {
  readonly serverCert: string
  readonly serverTrusts: string
  readonly clientCert: string
  readonly clientTrusts: string
}

/** One mutual TLS handshake with the broker's key as server and the device's as client. */
async function handshake(parties: Parties): Promise<{ client: string; server: string }> {
  const seen = { client: 'nothing', server: 'nothing' }
  const server = createServer({
    cert: parties.serverCert,
    key: broker.key,
    ca: parties.serverTrusts,
    requestCert: true,
    rejectUnauthorized: false, // with true Node closes a bad client without a reason
  })
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {})
    seen.server = socket.authorized ? 'accepted' : String(socket.authorizationError)
    socket.end('hello')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    servername: 'broker.ares4.internal',
    ca: parties.clientTrusts,
    cert: parties.clientCert,
    key: device.key,
  })
  // In TLS 1.3 a byte from the server is the first sign that both have agreed.
  client.on('data', () => {
    seen.client = 'accepted'
  })
  client.on('error', (error: NodeJS.ErrnoException) => {
    seen.client = error.code ?? error.message
  })
  await new Promise((resolve) => client.once('close', resolve))
  await new Promise((resolve) => server.close(resolve))
  return seen
}
