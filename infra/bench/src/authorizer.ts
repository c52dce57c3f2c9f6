/**
 * Decisions a second of the authorizer's webhooks, and their latency, against a bare node:https server that reads the body
 * and answers a constant of the same size. Both run in processes of their own, in turns, so that they share the machine's
 * moods; each number is the median of the rounds.
 *
 *   node scripts/run.mjs infra/bench/src/authorizer.ts [--seconds 2] [--rounds 3] [--json FILE]
 *
 * 1,000 devices with a certificate each; a certificate that was read once is remembered, as for a fleet that reconnects.
 */
import { fork } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:tls'
import { parseArgs } from 'node:util'
import { startWebhooks, TestCa, type TestLeaf } from '@ares/authorizer/testing'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '3' },
    json: { type: 'string' },
    role: { type: 'string' },
  },
})
const CONNECTIONS = [1, 32, 256]
const PACE = 5_000
const DEVICES = 1_000

type Hook = 'authn' | 'authz'
interface Setup {
  readonly server: TestLeaf
  readonly devices: readonly { readonly id: string; readonly serial: string }[]
  /** What the bare server answers. */
  readonly answers: Readonly<Record<Hook, string>>
}
interface Target {
  readonly port: number
  readonly requests: Readonly<Record<Hook, readonly Buffer[]>>
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string; readonly servername: string }
}
interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

async function serveAuthorizer({ server, devices }: Setup): Promise<number> {
  const known = devices.map(({ id, serial }) => ({ id, serial: Buffer.from(serial, 'hex') }))
  return (await startWebhooks(server, known)).port
}

function serveBare({ server, answers }: Setup): Promise<number> {
  const bare = createServer(
    { cert: server.chainPem, key: server.keyPem, ca: server.caPem, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const body = request.url === '/mqtt/authn' ? answers.authn : answers.authz
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
        response.end(body)
      })
    },
  )
  bare.keepAliveTimeout = 600_000
  return new Promise((resolve) => bare.listen(0, '127.0.0.1', () => resolve((bare.address() as AddressInfo).port)))
}

/** Keeps one request on each connection; with a pace, starts no more than so many a second. */
async function load(
  target: Target,
  hook: Hook,
  connections: number,
  seconds: number,
  pace?: number,
): Promise<Measured> {
  const sockets = await Promise.all(
    Array.from(
      { length: connections },
      () =>
        new Promise<ReturnType<typeof connect>>((resolve, reject) => {
          const socket = connect({ host: '127.0.0.1', port: target.port, ...target.tls }, () => resolve(socket))
          socket.once('error', reject)
          socket.setNoDelay(true)
        }),
    ),
  )
  const requests = target.requests[hook]
  const latencies: number[] = []
  const startedMs = performance.now()
  const endMs = startedMs + seconds * 1_000
  let sent = 0
  await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<void>((resolve, reject) => {
          let text = ''
          let sentMs = 0
          const send = () => {
            if (performance.now() >= endMs) return resolve()
            if (pace && sent >= ((performance.now() - startedMs) / 1_000) * pace) return void setTimeout(send, 1)
            sentMs = performance.now()
            socket.write(requests[sent++ % requests.length] ?? '')
          }
          socket.on('error', reject)
          socket.on('data', (part) => {
            text += part.toString('latin1')
            const head = text.indexOf('\r\n\r\n')
            if (head === -1) return
            const length = Number(/content-length: (\d+)/i.exec(text)?.[1])
            if (text.length < head + 4 + length) return
            if (!text.includes('"result":"allow"')) return reject(new Error(`not allowed: ${text.slice(0, 300)}`))
            text = ''
            latencies.push(performance.now() - sentMs)
            send()
          })
          send()
        }),
    ),
  )
  const tookSeconds = (performance.now() - startedMs) / 1_000
  for (const socket of sockets) socket.destroy()
  latencies.sort((a, b) => a - b)
  const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN
  return { perSecond: latencies.length / tookSeconds, p50Ms: at(0.5), p99Ms: at(0.99) }
}

async function measure(): Promise<void> {
  const { setup, target } = await prepare()
  const children = ['authorizer', 'bare'].map((role) => {
    const child = fork(__filename, ['--role', role], {
      execArgv: process.execArgv,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    child.send(setup)
    return child
  })
  const [authorizer, bare] = await Promise.all(
    children.map(
      (child) =>
        new Promise<Target>((resolve) => child.once('message', (port) => resolve({ ...target, port: Number(port) }))),
    ),
  )
  if (!authorizer || !bare) throw new Error('a server did not start')
  const seconds = Number(values.seconds)
  const rounds = Number(values.rounds)
  const rows: Record<string, number | string>[] = []
  const result: Record<string, number> = {}
  for (const hook of ['authn', 'authz'] as const) {
    await load(authorizer, hook, 8, 1)
    await load(bare, hook, 8, 1)
    const ratios: number[] = []
    for (const connections of CONNECTIONS) {
      const ours: Measured[] = []
      const theirs: Measured[] = []
      for (let round = 0; round < rounds; round++) {
        ours.push(await load(authorizer, hook, connections, seconds))
        theirs.push(await load(bare, hook, connections, seconds))
      }
      const [mine, constant] = [middle(ours), middle(theirs)]
      const ratio = median(ours.map((each, i) => each.perSecond / (theirs[i]?.perSecond ?? Number.NaN)))
      ratios.push(ratio)
      rows.push({
        hook,
        connections,
        'per s': Math.round(mine.perSecond),
        'bare per s': Math.round(constant.perSecond),
        ratio: round2(ratio),
        'p50 ms': round2(mine.p50Ms),
        'p99 ms': round2(mine.p99Ms),
        'bare p99 ms': round2(constant.p99Ms),
      })
    }
    const paced = await load(authorizer, hook, 32, seconds * rounds, PACE)
    rows.push({
      hook,
      connections: `32, at ${PACE}/s`,
      'per s': Math.round(paced.perSecond),
      'p50 ms': round2(paced.p50Ms),
      'p99 ms': round2(paced.p99Ms),
    })
    result[`ratio.${hook}`] = round2(median(ratios))
    result[`${hook}.p99Ms`] = round2(paced.p99Ms)
    result[`${hook}.pacedPerSecond`] = Math.round(paced.perSecond)
  }
  for (const child of children) child.kill()
  console.table(rows)
  console.log(JSON.stringify(result))
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ ...result, rows }, null, 2)}\n`)
}

async function prepare(): Promise<{ setup: Setup; target: Omit<Target, 'port'> }> {
  const ca = await TestCa.create()
  const broker = await ca.issue('broker.ares4.internal')
  const leaves = await Promise.all(
    Array.from({ length: DEVICES }, (_, i) => ca.issue(`device-${i}.device.ares4.internal`)),
  )
  const who = (leaf: TestLeaf, i: number) => ({
    clientid: `device-${i}`,
    username: leaf.commonName,
    peerhost: '10.1.2.3',
    cert_common_name: leaf.commonName,
  })
  return {
    setup: {
      server: await ca.issue('authorizer.service.ares4.internal'),
      devices: leaves.map((leaf, i) => ({ id: `device-${i}`, serial: leaf.serialBytes.toString('hex') })),
      answers: { authn: `{"result":"allow","x":"${'x'.repeat(1_300)}"}`, authz: '{"result":"allow"}' },
    },
    target: {
      tls: {
        ca: ca.caPem,
        cert: broker.chainPem,
        key: broker.keyPem,
        servername: 'authorizer.service.ares4.internal',
      },
      requests: {
        authn: leaves.map((leaf, i) =>
          http('authn', { ...who(leaf, i), password: '', cert_pem: leaf.der, zone: 'devices' }),
        ),
        authz: leaves.map((leaf, i) =>
          http('authz', {
            ...who(leaf, i),
            topic: `ares4/device-${i}/telemetry`,
            action: 'publish',
            qos: '1',
            retain: 'false',
          }),
        ),
      },
    },
  }
}

function http(hook: Hook, body: object): Buffer {
  const json = JSON.stringify(body)
  return Buffer.from(
    `POST /mqtt/${hook} HTTP/1.1\r\nhost: authorizer\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
  )
}

const round2 = (value: number): number => Math.round(value * 100) / 100

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN

const middle = (all: readonly Measured[]): Measured => ({
  perSecond: median(all.map((each) => each.perSecond)),
  p50Ms: median(all.map((each) => each.p50Ms)),
  p99Ms: median(all.map((each) => each.p99Ms)),
})

if (values.role === undefined) {
  void measure()
} else {
  process.once('message', (setup) => {
    const serve = values.role === 'bare' ? serveBare : serveAuthorizer
    void serve(setup as Setup).then((port) => process.send?.(port))
  })
}
