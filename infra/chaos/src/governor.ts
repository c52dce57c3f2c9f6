import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { wholeNumber } from '@ares/bench'
import { terminalProgress } from '@ares/embedded'
import { GOVERNOR_CASES, type GovernorCase } from './governor-cases'
import { type GovernorResult, isKept, type Rates, runGovernorCase } from './governor-run'
import { stopSignal } from './stop-signal'

const HELP = `npm run bench:governor -- [options]

What the governor is for: devices push as fast as they are let while PostgreSQL is slow, or no listener is there. Nothing
that was acknowledged may be missing, nothing may be there twice, the broker's queue must stay under its bound, and the
rate must be back within 10 s after the cause is gone. Beside it the same without the governor. Each case runs on a stack
of its own, with two listeners and the limits of emqx.conf, and takes a minute longer than its cause.

  --seconds N       how long the cause lasts (default 60)
  --devices N       publishers, a connection each (default 250)
  --case NAME       only this one; may be given several times
  --emqx COMMAND    run a real EMQX in the embedded broker's place, as npm start does
  --json FILE       the same figures as JSON
  --help

Cases:
${GOVERNOR_CASES.map(({ name, what }) => `  ${name.padEnd(30)}${what}`).join('\n')}
`

const print = (line = ''): void => void process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      seconds: { ...text, default: '60' },
      devices: { ...text, default: '250' },
      case: { ...text, multiple: true },
      emqx: text,
      json: text,
      help: { type: 'boolean' },
    },
  })
  if (values.help) return print(HELP)
  const cases = chosen(values.case)
  const stopped = stopSignal()
  const options = {
    stopped,
    seconds: wholeNumber('seconds', values.seconds, 1, 86_400),
    devices: wholeNumber('devices', values.devices, 1, 5_000),
    emqx: values.emqx,
    progress: terminalProgress(),
    onEvent: (event: object) => process.stderr.write(`${JSON.stringify(event)}\n`),
  }
  const results: GovernorResult[] = []
  for (const one of cases) {
    print(`\n${one.name}: ${one.what}`)
    results.push(await runGovernorCase(one, options))
  }
  print()
  for (const line of tableOf(results)) print(line)
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ cases: results }, null, 2)}\n`)
  if (!results.every(isKept)) process.exitCode = 1
}

/** @throws Error that names the cases there are */
function chosen(names: readonly string[] | undefined): readonly GovernorCase[] {
  if (!names) return GOVERNOR_CASES
  return names.map((name) => {
    const found = GOVERNOR_CASES.find((one) => one.name === name)
    if (found) return found
    throw new Error(`there is no case ${name}; there are ${GOVERNOR_CASES.map((one) => one.name).join(', ')}`)
  })
}

function tableOf(results: readonly GovernorResult[]): string[] {
  const whole = (value: number) => Math.round(value).toLocaleString('en')
  const rates = ({ before, during, after }: Rates) => [before, during, after].map(whole).join(' → ')
  const seconds = (ms: number) => (ms < 0 ? 'not seen' : `${(ms / 1_000).toFixed(1)} s`)
  return [
    '| case | kept | let in, messages/s: before → during → after | stored, rows/s | rate back | queue empty | greatest queue (bound) | lowest rate | acknowledged | rows | missing | twice |',
    '|---|---|---|---|---|---|---|---|---|---|---|---|',
    ...results.map(
      (result) =>
        `| ${result.name} | ${verdict(result)} | ${rates(result.admitted)} | ${rates(result.stored)} | ${seconds(result.returnMs)} | ${seconds(result.drainedMs)} | ${whole(result.greatestQueue)} (${result.isGoverned ? whole(result.queueBound) : 'none'}) | ${whole(result.lowestRate)} | ${whole(result.acknowledged)} | ${whole(result.committed)} | ${whole(result.missing)} | ${whole(result.duplicates)} |`,
    ),
  ]
}

/** Without the governor nothing is promised that the figures do not say. */
function verdict(result: GovernorResult): string {
  if (!isKept(result)) return 'NO'
  return result.isGoverned ? 'yes' : '–'
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`)
  // What the case still waits for would keep the process; its stack is stopped by now.
  process.exit(1)
})
