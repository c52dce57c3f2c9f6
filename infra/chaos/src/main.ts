import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { wholeNumber } from '@ares/bench'
import { terminalProgress } from '@ares/embedded'
import { CHAOS_CASES, type ChaosCase } from './chaos-cases'
import { type CaseResult, ChaosRun, isHealthy } from './chaos-run'
import { stopSignal } from './stop-signal'

const HELP = `npm run chaos -- [options]

Kills processes and cuts networks while devices publish, and then holds what the publishers know against the rows: nothing
that was acknowledged may be missing, nothing may be there twice. Where the broker dies, the word that counts is the
receipt: there the devices keep each report until then, and send it again after a reconnect or 5 s.

  --seconds N       how long each case publishes (default 60)
  --rate N          messages a second (default 2000)
  --devices N       publishers, a connection each (default 100)
  --case NAME       only this one; may be given several times
  --emqx COMMAND    run a real EMQX in the embedded broker's place, as npm start does
  --report FILE     where the report goes (default .ares/chaos-report.md)
  --json FILE       the same as JSON
  --help

Cases:
${CHAOS_CASES.map(({ name, what }) => `  ${name.padEnd(24)}${what}`).join('\n')}
`

const print = (line = ''): void => void process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      seconds: { ...text, default: '60' },
      rate: { ...text, default: '2000' },
      devices: { ...text, default: '100' },
      case: { ...text, multiple: true },
      emqx: text,
      report: { ...text, default: '.ares/chaos-report.md' },
      json: text,
      help: { type: 'boolean' },
    },
  })
  if (values.help) return print(HELP)
  const cases = chosen(values.case)
  const stopped = stopSignal()
  const run = await ChaosRun.start({
    stopped,
    seconds: wholeNumber('seconds', values.seconds, 4, 86_400),
    rate: wholeNumber('rate', values.rate, 1, 1_000_000),
    devices: wholeNumber('devices', values.devices, 1, 5_000),
    emqx: values.emqx,
    progress: terminalProgress(),
    onEvent: (event) => {
      if (event.kind !== 'died') return
      print(`  · ${event.part} ended: ${event.why}`)
    },
  })
  const results: CaseResult[] = []
  try {
    for (const one of cases) {
      print(`\n${one.name}: ${one.what}`)
      const result = await Promise.race([run.run(one), stopped])
      results.push(result)
      print(`  ${isHealthy(result) ? 'ok' : 'NOT OK'}   ${numbersOf(result)}`)
    }
  } finally {
    write(values.report, reportOf(results, values.rate, values.seconds))
    if (values.json) write(values.json, `${JSON.stringify({ cases: results }, null, 2)}\n`)
    print(`\nReport: ${values.report}`)
    await run.stop()
  }
  if (!results.every(isHealthy)) process.exitCode = 1
}

/** @throws Error that names the cases there are */
function chosen(names: readonly string[] | undefined): readonly ChaosCase[] {
  if (!names) return CHAOS_CASES
  return names.map((name) => {
    const found = CHAOS_CASES.find((one) => one.name === name)
    if (found) return found
    throw new Error(`there is no case ${name}; there are ${CHAOS_CASES.map((one) => one.name).join(', ')}`)
  })
}

const numbersOf = (result: CaseResult): string =>
  `published ${result.published}, acknowledged ${result.acknowledged}, rows ${result.committed}, missing ${result.missing}, ` +
  `twice ${result.duplicates}, dead letters ${result.deadLetters}, recovered after ${(result.recoveryMs / 1_000).toFixed(1)} s`

function reportOf(results: readonly CaseResult[], rate: string, seconds: string): string {
  const lines = results.map(
    (result) =>
      `| ${result.name} | ${result.what} | ${result.acknowledged} | ${result.committed} | ${result.missing} | ${result.duplicates} | ${(result.recoveryMs / 1_000).toFixed(1)} s |`,
  )
  return `# Chaos run of ${new Date().toISOString()}

${rate} messages a second for ${seconds} s a case, two listeners. Missing: acknowledged to the publisher (by the broker's
PUBACK; by the receipt where the broker itself dies) and in no row. Recovery: from the kill or the end of the outage to
the last commit of a report that was more than a second old.

| case | what was done | acknowledged | rows | missing | twice | recovery |
|---|---|---|---|---|---|---|
${lines.join('\n')}
`
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
})
