import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Stack } from '@ares/embedded'
import type { BenchDevice } from './bench-fleet'
import { makeBenchFleet } from './bench-fleet'
import { startBenchStack } from './bench-stack'
import { wholeNumber } from './ingest-options'
import { measureRenewal } from './renewal-run'
import { measureRevocation, type RevocationResult } from './revocation-run'
import { measureSigning, type SigningResult } from './signing-run'

const HELP = `npm run bench:certificates -- [options]

What happens to certificates, on a whole stack of its own on this machine:
  revoke   the REST call that revokes -> the device's socket is closed, one device after the other. Each device tries to
           come back at once; "came back" counts those that were let in, and should be 0
  sign     CSRs a second through REST: checks, Vault, database, audit, directory
  renewal  devices renew over MQTT and move to the new certificate while they report; "lost" are reports without a row

  --part LIST     revoke,sign,renewal (default all)
  --devices N     devices that are connected and then revoked (default 200)
  --csrs N        CSRs at each degree of parallelism (default 300)
  --parallel LIST calls at once, one run each (default 1,8,32)
  --renewing N    devices that renew while they report (default 50)
  --rate N        reports a second of all of them together (default 1000)
  --seconds N     how long they report (default 20)
  --emqx COMMAND  run a real EMQX in the embedded broker's place, as npm start does
  --json FILE     the same figures as JSON: revoke.p50Ms, revoke.p99Ms, sign.perSecond, renewal.lost
  --help
`

interface Options {
  readonly parts: ReadonlySet<string>
  readonly devices: number
  readonly csrs: number
  readonly parallel: readonly number[]
  readonly renewing: number
  readonly rate: number
  readonly seconds: number
  readonly emqx?: string
  readonly json?: string
}

const print = (line = ''): void => void process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2))
  if (!options) return print(HELP)
  const stack = await startBenchStack({ emqx: options.emqx })
  try {
    const figures = await measure(stack, options)
    if (options.json) writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`)
  } finally {
    await stack.stop()
    stack.state.remove()
  }
}

/** The figures under the names that the README uses. */
async function measure(stack: Stack, options: Options): Promise<Record<string, unknown>> {
  const needed = options.parts.has('revoke') ? options.devices : 1
  const plan = { devices: needed, components: 0, wantsReceipts: false }
  const devices = await makeBenchFleet(stack.client(), plan)
  return {
    ...(options.parts.has('revoke') ? await revoke(stack, devices) : {}),
    ...(options.parts.has('sign') ? await sign(stack, devices, options) : {}),
    ...(options.parts.has('renewal') ? await renew(stack, options) : {}),
  }
}

async function revoke(stack: Stack, devices: readonly BenchDevice[]) {
  const result: RevocationResult = await measureRevocation(stack, devices)
  print(`\nRevoke, REST call -> socket closed, ${result.devices} devices one after the other`)
  const { p50Ms, p90Ms, p99Ms, maxMs, answerP50Ms, cameBack } = result
  print(
    `  p50 ${p50Ms} ms, p90 ${p90Ms} ms, p99 ${p99Ms} ms, longest ${maxMs} ms; answer of the call: p50 ${answerP50Ms} ms`,
  )
  print(`  came back: ${cameBack}`)
  return {
    'revoke.p50Ms': p50Ms,
    'revoke.p90Ms': p90Ms,
    'revoke.p99Ms': p99Ms,
    'revoke.maxMs': maxMs,
    'revoke.devices': result.devices,
    'revoke.cameBack': cameBack,
  }
}

async function sign(stack: Stack, devices: readonly BenchDevice[], { csrs, parallel }: Options) {
  print('\nSign, CSRs a second through REST')
  const runs: SigningResult[] = []
  for (const calls of parallel) {
    const run = await measureSigning(stack, devices, { csrs, parallel: calls })
    print(`  ${String(calls).padStart(3)} at once: ${run.perSecond}/s, p50 ${run.p50Ms} ms, p99 ${run.p99Ms} ms`)
    runs.push(run)
  }
  const best = Math.max(...runs.map(({ perSecond }) => perSecond))
  return { 'sign.perSecond': best, 'sign.runs': runs }
}

async function renew(stack: Stack, { renewing, rate, seconds }: Options) {
  const result = await measureRenewal(stack, { devices: renewing, rate, seconds })
  const { devices, renewed, reports, perSecond, lost, p50Ms, p99Ms } = result
  print(`\nRenewal over MQTT, ${renewed} of ${devices} devices, while they report`)
  print(`  ${reports} reports at ${perSecond}/s, lost: ${lost}`)
  print(`  request -> connection with the new certificate: p50 ${p50Ms} ms, p99 ${p99Ms} ms`)
  return {
    'renewal.lost': lost,
    'renewal.reports': reports,
    'renewal.perSecond': perSecond,
    'renewal.devices': devices,
    'renewal.renewed': renewed,
    'renewal.p50Ms': p50Ms,
    'renewal.p99Ms': p99Ms,
  }
}

function readOptions(args: readonly string[]): Options | undefined {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...args],
    options: {
      part: { ...text, default: 'revoke,sign,renewal' },
      devices: { ...text, default: '200' },
      csrs: { ...text, default: '300' },
      parallel: { ...text, default: '1,8,32' },
      renewing: { ...text, default: '50' },
      rate: { ...text, default: '1000' },
      seconds: { ...text, default: '20' },
      emqx: text,
      json: text,
      help: { type: 'boolean' },
    },
  })
  if (values.help) return undefined
  return {
    parts: new Set(values.part.split(',').map((part) => part.trim())),
    devices: wholeNumber('devices', values.devices, 1, 5_000),
    csrs: wholeNumber('csrs', values.csrs, 1, 100_000),
    parallel: values.parallel.split(',').map((calls) => wholeNumber('parallel', calls, 1, 256)),
    renewing: wholeNumber('renewing', values.renewing, 1, 1_000),
    rate: wholeNumber('rate', values.rate, 1, 20_000),
    seconds: wholeNumber('seconds', values.seconds, 2, 3_600),
    emqx: values.emqx,
    json: values.json,
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
