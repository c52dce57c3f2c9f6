import { writeFileSync } from 'node:fs'
import type { Stack } from '@ares/embedded'
import { makeBenchFleet } from './bench-fleet'
import { startBenchStack } from './bench-stack'
import { CommittedRows } from './committed'
import { INGEST_HELP, type IngestOptions, readIngestOptions } from './ingest-options'
import { type IngestResult, runIngest, startPublishers } from './ingest-run'

const print = (line = ''): void => void process.stdout.write(`${line}\n`)

async function main(): Promise<void> {
  const options = readIngestOptions(process.argv.slice(2))
  if (!options) return print(INGEST_HELP)
  const stack = await startBenchStack(options)
  try {
    const results = await measure(stack, options)
    const [summary] = [...results].sort((a, b) => b.metrics - a.metrics)
    if (options.json) writeFileSync(options.json, `${JSON.stringify({ ...summary, runs: results }, null, 2)}\n`)
  } finally {
    await stack.stop()
    stack.state.remove()
  }
}

async function measure(stack: Stack, options: IngestOptions): Promise<IngestResult[]> {
  const rows = await CommittedRows.open(stack.urls.database)
  const plan = { devices: options.devices, components: 8, wantsReceipts: false }
  const devices = await makeBenchFleet(stack.client(), plan)
  const publishers = await startPublishers(options.broker ?? stack.urls.mqtt, devices, options)
  const results: IngestResult[] = []
  try {
    for (const metrics of options.metrics) {
      const result = await runIngest({ stack, options, publishers, rows }, metrics)
      results.push(result)
      printResult(result)
    }
  } finally {
    await publishers.stop()
    await rows.close()
  }
  return results
}

function printResult({ metrics, floor, ares, copy, latency, ratio }: IngestResult): void {
  const whole = (value: number) => Math.round(value).toLocaleString('en')
  print()
  print(`${metrics} ${metrics === 1 ? 'metric' : 'metrics'} a report`)
  print(`  floor    ${whole(floor.messagesPerSecond).padStart(8)} messages/s   ${micros(floor.cpuMicros)}`)
  print(`  ares     ${whole(ares.messagesPerSecond).padStart(8)} messages/s   ${micros(ares.cpuMicros)}`)
  print(
    `           ${whole(ares.rowsPerSecond).padStart(8)} rows/s       listener + api ${ares.cpuMicrosPerReport.toFixed(1)} us of CPU a report`,
  )
  print(`  copy     ${whole(copy.rowsPerSecond).padStart(8)} rows/s`)
  const turns = ratio.floorOfEachRound.map((each) => each.toFixed(2)).join(', ')
  print(`  ratio    ares/floor ${ratio.floor.toFixed(2)} (of ${turns})   ares/copy ${ratio.copy.toFixed(2)}`)
  const { p50Ms, p99Ms, ratePerSecond } = latency
  print(
    `  latency  p50 ${p50Ms.toFixed(0)} ms, p99 ${p99Ms.toFixed(0)} ms from publish to commit at ${whole(ratePerSecond)} messages/s`,
  )
  const { begin, end, most } = ares.listenerMegabytes
  print(`  listener ${begin} MB at the beginning, ${end} MB at the end, ${most} MB at most`)
  const missing = ares.acknowledged - ares.committed
  if (missing !== 0) print(`  !! ${missing} messages that the broker acknowledged are not committed`)
}

const micros = (cpu: Readonly<Record<string, number>>): string =>
  `CPU us a message: ${Object.entries(cpu)
    .map(([name, value]) => `${name} ${value.toFixed(1)}`)
    .join(', ')}`

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
})
