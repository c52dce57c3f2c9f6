/**
 * What it prints is in HELP. The snapshot comes twice, because the old tables answer while the new ones load: the peak is
 * what a limit must allow.
 */
import { fork } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { deviceEntry, openReplica, TestApi } from '@ares/authorizer/testing'
import { TestAuthority, TestIdentity, type TestLeaf, until } from '@ares/chassis/testing'

const HELP = `npm run bench:replica -- [options]

How long the authorizer takes to load a directory, and how much memory it needs then. A second process serves the snapshot
over real gRPC with mTLS; this one holds the real watcher and replica.

  --devices N     in the directory (default 1000000)
  --json FILE     the same figures as JSON
  --help
`

const { values } = parseArgs({
  options: {
    devices: { type: 'string', default: '1000000' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
    role: { type: 'string' },
  },
})
const devices = Number(values.devices)

/** A UUID for a number. */
const idOf = (n: number): string => `018f2b7e-0000-7000-8000-${n.toString(16).padStart(12, '0')}`

async function serveSnapshots(leaf: TestLeaf): Promise<void> {
  let opened = 0
  const api = await TestApi.start(new TestIdentity(leaf), async (call) => {
    opened += 1
    const version = BigInt(opened)
    call.write({ event: { $case: 'snapshotBegin', value: { epoch: `epoch-${opened}`, version } } })
    for (let start = 0; start < devices; start += 5_000) {
      const entries = Array.from({ length: Math.min(5_000, devices - start) }, (_, i) => {
        const serial = Buffer.alloc(20, 7)
        serial.writeUInt32BE(start + i, 16)
        return deviceEntry(idOf(start + i), [serial], { organizationId: `org-${(start + i) % 1_000}` })
      })
      const goOn = call.write({ event: { $case: 'snapshotChunk', value: { entries } } })
      if (!goOn) await new Promise((resolve) => call.once('drain', resolve))
    }
    call.write({ event: { $case: 'snapshotEnd', value: { version, entries: BigInt(devices) } } })
    process.on('message', () => call.end())
  })
  process.send?.(api.port)
}

async function measure(): Promise<void> {
  const ca = await TestAuthority.create()
  const leaf = await ca.leaf('api.service.ares4.internal')
  const api = fork(__filename, ['--role', 'api', '--devices', String(devices)], { execArgv: process.execArgv })
  api.send(leaf)
  const port = await new Promise<number>((resolve) => api.once('message', (message) => resolve(Number(message))))
  const own = new TestIdentity(await ca.leaf('authorizer.service.ares4.internal'))
  const emptyMb = megabytes()
  let peak = 0
  const watching = setInterval(() => {
    peak = Math.max(peak, megabytes())
  }, 50)
  const startedMs = performance.now()
  const { replica, close } = openReplica(port, own)
  await until(() => replica.position.version === 1n, 'the snapshot', 300_000)
  const seconds = (performance.now() - startedMs) / 1_000
  const loadedMb = megabytes()
  api.send('again')
  await until(() => replica.position.version === 2n, 'the second snapshot', 300_000)
  clearInterval(watching)

  const wanted = idOf(devices - 1)
  const lookups = 200_000
  const lookedUpMs = performance.now()
  for (let i = 0; i < lookups; i++) replica.knowledge()?.directory.device(i % 2 ? wanted : idOf(i % devices))
  const result = {
    devices,
    'replica.loadSeconds': Number(seconds.toFixed(2)),
    'replica.megabytes': Math.round(peak),
    emptyMegabytes: Math.round(emptyMb),
    afterLoadMegabytes: Math.round(loadedMb),
    tablesMegabytes: Math.round(replica.sizes().bytes / 2 ** 20),
    lookupMicroseconds: Number((((performance.now() - lookedUpMs) / lookups) * 1_000).toFixed(2)),
  }
  close()
  api.kill()
  console.table(result)
  if (values.json) writeFileSync(values.json, `${JSON.stringify(result, null, 2)}\n`)
}

const megabytes = (): number => process.memoryUsage().rss / 2 ** 20

if (values.help) process.stdout.write(HELP)
else if (values.role === 'api') process.once('message', (leaf) => void serveSnapshots(leaf as TestLeaf))
else void measure()
