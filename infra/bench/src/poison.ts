import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { makeBenchFleet } from './bench-fleet'
import { startBenchStack } from './bench-stack'
import { CommittedRows } from './committed'
import { GARBAGE } from './garbage'
import { wholeNumber } from './ingest-options'
import { type IngestBench, settledByListeners, startPublishers } from './ingest-run'

const HELP = `npm run bench:poison -- [options]

A clean run, then one in which every hundredth message is garbage of ${GARBAGE.length} kinds. Every good report must become a row, every
bad one a dead letter with the right reason, and the rate must not fall by more than a tenth.

  --messages N     messages of each of the two runs (default 100000; what we promise was measured with 1000000)
  --devices N      publishers, a connection each (default 40)
  --emqx COMMAND   run a real EMQX in the embedded broker's place, as npm start does
  --json FILE      the same figures as JSON
  --help
`

interface Run {
  readonly published: number
  readonly good: number
  readonly rows: number
  readonly messagesPerSecond: number
  /** By reason. */
  readonly expected: Readonly<Record<string, number>>
  readonly deadLetters: Readonly<Record<string, number>>
}

const print = (line = ''): void => void process.stdout.write(`${line}\n`)
const METRICS = 3
const GARBAGE_EVERY = 100

async function main(): Promise<void> {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      messages: { ...text, default: '100000' },
      devices: { ...text, default: '40' },
      emqx: text,
      json: text,
      help: { type: 'boolean' },
    },
  })
  if (values.help) return print(HELP)
  const messages = wholeNumber('messages', values.messages, 1_000, 100_000_000)
  const devices = wholeNumber('devices', values.devices, 1, 5_000)
  const options = {
    seconds: 0,
    rounds: 1,
    metrics: [],
    devices,
    listeners: 1,
    window: 32,
    outstanding: 8_000,
    emqx: values.emqx,
  } as const
  const stack = await startBenchStack(options)
  try {
    const rows = await CommittedRows.open(stack.urls.database)
    const fleet = await makeBenchFleet(stack.client(), { devices, components: 8, wantsReceipts: false })
    const publishers = await startPublishers(stack.urls.mqtt, fleet, options)
    const bench = { stack, options, publishers, rows }
    try {
      await run(bench, Math.ceil(messages / 10), undefined) // warm up
      const clean = await run(bench, messages, undefined)
      const poison = await run(bench, messages, GARBAGE_EVERY)
      const ratio = poison.messagesPerSecond / clean.messagesPerSecond
      const isRight = isAllAccountedFor(clean) && isAllAccountedFor(poison)
      report(clean, poison, ratio, isRight)
      if (values.json) writeFileSync(values.json, `${JSON.stringify({ clean, poison, ratio, isRight }, null, 2)}\n`)
      if (!isRight) process.exitCode = 1
    } finally {
      await publishers.stop()
      await rows.close()
    }
  } finally {
    await stack.stop()
    stack.state.remove()
  }
}

const LOOK_EVERY_MS = 200

async function run(bench: IngestBench, messages: number, garbageEvery: number | undefined): Promise<Run> {
  const { publishers, rows, stack, options } = bench
  await rows.clear()
  const before = await settledByListeners(stack, options)
  const allowed = (settled: number) => Math.min(messages, settled + options.outstanding)
  publishers.tell({ type: 'run', metrics: METRICS, allowed: allowed(0), garbageEvery })
  let changedAt = Date.now()
  for (let known = -1; ; await sleep(LOOK_EVERY_MS)) {
    const settled = (await settledByListeners(stack, options)) - before
    if (settled >= messages) break
    if (settled !== known) changedAt = Date.now()
    else if (Date.now() - changedAt > 30_000) break
    known = settled
    publishers.tell({ type: 'allow', allowed: allowed(settled), withinMs: LOOK_EVERY_MS })
  }
  publishers.tell({ type: 'stop' })
  const { published, firstAt, garbage } = await publishers.next('stopped')
  const good = published - sumOf(garbage)
  const stored = await rows.settle(good)
  const { lastAt } = await rows.describe()
  return {
    published,
    good,
    rows: stored,
    messagesPerSecond: published / ((lastAt - firstAt) / 1_000),
    expected: garbage,
    deadLetters: await rows.deadLetters(),
  }
}

const sumOf = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0)

function isAllAccountedFor({ good, rows, expected, deadLetters }: Run): boolean {
  const reasons = new Set([...Object.keys(expected), ...Object.keys(deadLetters)])
  return rows === good && [...reasons].every((reason) => expected[reason] === deadLetters[reason])
}

function report(clean: Run, poison: Run, ratio: number, isRight: boolean): void {
  const line = (name: string, { published, rows, deadLetters, messagesPerSecond }: Run) =>
    print(
      `  ${name.padEnd(8)} ${published} published, ${rows} rows, ${sumOf(deadLetters)} dead letters, ${Math.round(messagesPerSecond)} messages/s`,
    )
  print()
  line('clean', clean)
  line('poison', poison)
  for (const [reason, count] of Object.entries(poison.expected).sort()) {
    print(`    ${reason.padEnd(16)} ${count} sent, ${poison.deadLetters[reason] ?? 0} dead letters`)
  }
  print(
    `  ${isRight ? 'every message is accounted for' : 'NOT every message is accounted for'}; rate ${(ratio * 100).toFixed(0)} % of the clean one`,
  )
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
})
