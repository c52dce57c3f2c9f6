/**
 * Decisions a second of the authorizer's webhooks, and their latency, against a bare node:https server that reads the body
 * and answers a constant of the same size. Both run in processes of their own, in turns, so that they share the machine's
 * moods; each number is the median of the rounds, but those at a pace are of one long run. The processor time that a server
 * used for an answer is shown as well: it depends less on what else the machine does.
 *
 *   npm run bench:authorizer -- [--seconds 1] [--rounds 7] [--devices 1000000] [--endurance 10000000] [--json FILE]
 *
 *   --seconds N     of each measurement
 *   --rounds N      of which the median is taken
 *   --devices N     in the directory that bench:replica loads afterwards; 0: leave that out
 *   --endurance N   decisions that one process makes afterwards, and how its memory grows; 0: leave that out
 *   --json FILE     ratio.authn, ratio.authz, authn.p99Ms, authz.p99Ms (at 5,000/s), replica.*, endurance.*, and all rows
 *   --cpu-prof DIR  profiles of both servers
 *
 * 1,000 devices, each with a certificate that was seen before, as of a fleet that reconnects.
 */
import { fork } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { admissionOver, startWebhooks } from '@ares/authorizer/testing'
import { TestAuthority, type TestLeaf } from '@ares/chassis/testing'
import { loadAtPace, loadFully, type Measured, type WebhookTarget } from './webhook-load'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '7' },
    json: { type: 'string' },
    devices: { type: 'string', default: '1000000' },
    endurance: { type: 'string', default: '10000000' },
    'cpu-prof': { type: 'string' },
    help: { type: 'boolean', default: false },
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
  /** Questions of the broker, JSON. */
  readonly bodies: Readonly<Record<Hook, readonly string[]>>
  /** What the bare server answers: what the authorizer answers to the first of them. */
  readonly answers: Readonly<Record<Hook, string>>
}
interface Target extends WebhookTarget {
  readonly requests: Readonly<Record<Hook, readonly Buffer[]>>
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

async function measure(): Promise<void> {
  const { setup, target } = await prepare()
  const children = ['authorizer', 'bare'].map((role) => {
    const profile = values['cpu-prof'] ? ['--cpu-prof', `--cpu-prof-dir=${join(values['cpu-prof'], role)}`] : []
    const child = fork(__filename, ['--role', role], {
      execArgv: [...process.execArgv, ...profile],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    child.send(setup)
    return child
  })
  const [authorizer, bare] = await Promise.all(
    children.map(async (child): Promise<Target> => {
      const answer = () => new Promise<number>((resolve) => child.once('message', (value) => resolve(Number(value))))
      const port = await answer()
      const cpu = () => {
        child.send('cpu')
        return answer()
      }
      return { ...target, name: child.spawnargs.at(-1) ?? '', port, cpu }
    }),
  )
  if (!authorizer || !bare) throw new Error('a server did not start')
  const seconds = Number(values.seconds)
  const rounds = Number(values.rounds)
  const rows: Record<string, number | string>[] = []
  const result: Record<string, number> = {}
  for (const hook of ['authn', 'authz'] as const) {
    const ask = (target: Target, connections: number) =>
      loadFully(target, target.requests[hook], { connections, seconds })
    // Every certificate once, and the compiler warm.
    for (let round = 0; round < rounds; round++) {
      await ask(authorizer, 8)
      await ask(bare, 8)
    }
    const ratios: number[] = []
    for (const connections of CONNECTIONS) {
      const ours: Measured[] = []
      const theirs: Measured[] = []
      for (let round = 0; round < rounds; round++) {
        ours.push(await ask(authorizer, connections))
        theirs.push(await ask(bare, connections))
      }
      const ratio = median(ours.map((each, i) => each.perSecond / (theirs[i]?.perSecond ?? Number.NaN)))
      ratios.push(ratio)
      rows.push({ ...row(hook, String(connections), middle(ours), middle(theirs)), ratio: round2(ratio) })
    }
    const atPace = (target: Target) =>
      loadAtPace(target, target.requests[hook], { connections: 32, seconds: seconds * rounds, pace: PACE })
    const paced = await atPace(authorizer)
    rows.push(row(hook, `32, at ${PACE}/s`, paced, await atPace(bare)))
    result[`ratio.${hook}`] = round2(median(ratios))
    result[`${hook}.p99Ms`] = round2(paced.p99Ms)
    result[`${hook}.pacedPerSecond`] = Math.round(paced.perSecond)
  }
  for (const child of children) child.disconnect()
  console.table(rows)
  if (Number(values.endurance) > 0) Object.assign(result, await endure(setup))
  if (Number(values.devices) > 0) Object.assign(result, await loadReplica())
  console.log(JSON.stringify(result))
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ ...result, rows }, null, 2)}\n`)
}

/** Decisions in a process of their own, half of them connections, every tenth one a refusal. */
function endure(setup: Setup): Promise<Record<string, number>> {
  const child = fork(__filename, ['--role', 'endurance', '--endurance', values.endurance], {
    execArgv: ['--expose-gc', ...process.execArgv],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  child.send(setup)
  return new Promise((resolve, reject) => {
    child.once('message', (measured) => resolve(measured as Record<string, number>))
    child.once('exit', (code) => reject(new Error(`the endurance run ended with ${code}`)))
  })
}

/** The journal is emptied as api would empty it. Memory is what is in use after a collection of garbage. */
function runEndurance({ devices }: Setup, requests: Readonly<Record<Hook, readonly Buffer[]>>, caPem: string): void {
  const { admission, journal } = admissionOver(
    caPem,
    devices.map(({ id, serial }) => ({ id, serial: Buffer.from(serial, 'hex') })),
  )
  const decisions = Number(values.endurance)
  const samples: number[] = []
  const tenth = Math.max(1, Math.floor(decisions / 10))
  const startedMs = performance.now()
  for (let i = 0; i < decisions; i++) {
    const hook = i % 2 ? 'authn' : 'authz'
    const body = requests[hook][(i >> 1) % requests[hook].length] ?? Buffer.alloc(0)
    // Refusals that are never the same: whoever counts by client would grow by them.
    if (i % 10 === 9) admission.connect(Buffer.from(body.toString().replace('"clientid":"', `"clientid":"${i}-`)))
    else if (hook === 'authn') admission.connect(body)
    else admission.action(body)
    if (i % 5_000 === 0) journal.take(5_000)
    if (i % tenth === 0) {
      globalThis.gc?.()
      const { heapUsed, external } = process.memoryUsage()
      samples.push((heapUsed + external) / 2 ** 20)
    }
  }
  const seconds = (performance.now() - startedMs) / 1_000
  process.send?.(
    {
      'endurance.decisions': decisions,
      'endurance.perSecond': Math.round(decisions / seconds),
      // The first tenth warms up: certificates, compiled code.
      'endurance.earlyMegabytes': round2(samples[2] ?? Number.NaN),
      'endurance.lateMegabytes': round2(samples.at(-1) ?? Number.NaN),
    },
    () => process.exit(),
  )
}

/** bench:replica, whose numbers belong to the authorizer too. */
async function loadReplica(): Promise<Record<string, number>> {
  const folder = mkdtempSync(join(tmpdir(), 'ares-bench-'))
  const file = join(folder, 'replica.json')
  const args = ['--devices', values.devices, '--json', file]
  const child = fork(join(__dirname, `replica${__filename.slice(-3)}`), args, { execArgv: process.execArgv })
  await new Promise((resolve) => child.once('exit', resolve))
  const measured: Record<string, number> = JSON.parse(readFileSync(file, 'utf8'))
  rmSync(folder, { recursive: true })
  return Object.fromEntries(Object.entries(measured).filter(([name]) => name.startsWith('replica.')))
}

async function prepare(): Promise<{ setup: Setup; target: Omit<Target, 'name' | 'port' | 'cpu'> }> {
  const ca = await TestAuthority.create()
  const broker = await ca.leaf('broker.ares4.internal')
  const leaves = await Promise.all(
    Array.from({ length: DEVICES }, (_, i) => ca.leaf(`device-${i}.device.ares4.internal`)),
  )
  const who = (leaf: TestLeaf, i: number) => ({
    clientid: `device-${i}`,
    username: leaf.commonName,
    peerhost: '10.1.2.3',
    cert_common_name: leaf.commonName,
  })
  const authnBody = (leaf: TestLeaf, i: number) =>
    JSON.stringify({ ...who(leaf, i), password: '', cert_pem: leaf.der, zone: 'devices' })
  const authzBody = (leaf: TestLeaf, i: number) =>
    JSON.stringify({
      ...who(leaf, i),
      topic: `ares4/device-${i}/telemetry`,
      action: 'publish',
      qos: '1',
      retain: 'false',
    })
  const bodies = { authn: leaves.map(authnBody), authz: leaves.map(authzBody) }
  const known = leaves.map((leaf, i) => ({ id: `device-${i}`, serial: leaf.serialBytes }))
  const { admission } = admissionOver(ca.caPem, known)
  const first = (texts: readonly string[]) => Buffer.from(texts[0] ?? '')
  return {
    setup: {
      bodies,
      server: await ca.leaf('authorizer.service.ares4.internal'),
      devices: known.map(({ id, serial }) => ({ id, serial: serial.toString('hex') })),
      answers: { authn: admission.connect(first(bodies.authn)), authz: admission.action(first(bodies.authz)) },
    },
    target: {
      tls: {
        ca: ca.caPem,
        cert: broker.chainPem,
        key: broker.keyPem,
        servername: 'authorizer.service.ares4.internal',
      },
      requests: {
        authn: bodies.authn.map((body) => http('authn', body)),
        authz: bodies.authz.map((body) => http('authz', body)),
      },
    },
  }
}

const http = (hook: Hook, json: string): Buffer =>
  Buffer.from(
    `POST /mqtt/${hook} HTTP/1.1\r\nhost: authorizer\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`,
  )

const row = (hook: Hook, connections: string, ours: Measured, theirs: Measured): Record<string, number | string> => ({
  hook,
  connections,
  'per s': Math.round(ours.perSecond),
  'bare per s': Math.round(theirs.perSecond),
  'p50 ms': round2(ours.p50Ms),
  'p99 ms': round2(ours.p99Ms),
  'bare p99 ms': round2(theirs.p99Ms),
  'cpu µs': Math.round(ours.cpu),
  'bare cpu µs': Math.round(theirs.cpu),
  'asking µs': Math.round(ours.generatorCpu),
})

const round2 = (value: number): number => Math.round(value * 100) / 100

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN

const middle = (all: readonly Measured[]): Measured => ({
  perSecond: median(all.map((each) => each.perSecond)),
  p50Ms: median(all.map((each) => each.p50Ms)),
  p99Ms: median(all.map((each) => each.p99Ms)),
  cpu: median(all.map((each) => each.cpu)),
  generatorCpu: median(all.map((each) => each.generatorCpu)),
})

/** One of the processes that are measured: told what to serve, it says its port, and its processor time when asked. */
function beChild(role: string): void {
  process.once('disconnect', () => process.exit())
  process.once('message', (message) => {
    const setup = message as Setup
    if (role === 'endurance') {
      const buffers = (texts: readonly string[]) => texts.map((text) => Buffer.from(text))
      const { authn, authz } = setup.bodies
      runEndurance(setup, { authn: buffers(authn), authz: buffers(authz) }, setup.server.caPem)
      return
    }
    const serve = role === 'bare' ? serveBare : serveAuthorizer
    void serve(setup).then((port) => {
      process.send?.(port)
      process.on('message', () => {
        const { user, system } = process.cpuUsage()
        process.send?.(user + system)
      })
    })
  })
}

if (values.help)
  console.log(
    readFileSync(__filename, 'utf8')
      .split('*/')[0]
      ?.replace(/^\/?[* ]*\*/gm, ''),
  )
else if (values.role !== undefined) beChild(values.role)
else void measure()
