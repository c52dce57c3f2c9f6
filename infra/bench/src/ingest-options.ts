import { parseArgs } from 'node:util'

export const INGEST_HELP = `npm run bench:ingest -- [options]

What Ares commits a second, beside two yardsticks of the same machine in the same minutes:
  floor   an MQTT.js subscriber that only counts, on the same broker, with the same publishers
  ares    broker -> listener -> api -> PostgreSQL, rows counted in PostgreSQL afterwards
  copy    the same rows by COPY into a table of the same shape
Floor and ares take turns, because the machine has moods; what is shown is the turn with the middle ratio. Everything runs
on this machine: with two cores the publishers' work is part of each number. A run takes five minutes.

  --seconds N          how long each of the measurements lasts (default 4)
  --rounds N           turns of floor and ares (default 7)
  --metrics LIST       metrics a report, one run each (default 1,5)
  --devices N          publishers, a connection each (default 40)
  --listeners N        1 or 2 listeners (default 1)
  --window N           unacknowledged reports a publisher (default 32)
  --outstanding N      reports on their way to the subscriber at most: the broker's queue stays short (default 12000)
  --broker URL         mqtt:// or mqtts:// of any broker without our webhooks, for publishers and subscriber alike.
                       For mosquitto: allow_anonymous true, max_inflight_messages 0, max_queued_messages 0
  --emqx COMMAND       run a real EMQX in the embedded broker's place, as npm start does
  --profile DIR        write CPU profiles of listener, api and embedded broker there
  --json FILE          the same figures as JSON
  --help
`

export interface IngestOptions {
  readonly seconds: number
  readonly rounds: number
  readonly metrics: readonly number[]
  readonly devices: number
  readonly listeners: 1 | 2
  readonly window: number
  readonly outstanding: number
  readonly broker?: string
  readonly emqx?: string
  readonly profile?: string
  readonly json?: string
}

/** @returns undefined when help is asked for @throws Error that says which option is wrong */
export function readIngestOptions(args: readonly string[]): IngestOptions | undefined {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { ...text, default: '4' },
      rounds: { ...text, default: '7' },
      metrics: { ...text, default: '1,5' },
      devices: { ...text, default: '40' },
      listeners: { ...text, default: '1' },
      window: { ...text, default: '32' },
      outstanding: { ...text, default: '12000' },
      broker: text,
      emqx: text,
      profile: text,
      json: text,
      help: { type: 'boolean' },
    },
  })
  if (values.help) return undefined
  const { broker, emqx, profile, json } = values
  if (broker && emqx) throw new Error('--broker and --emqx name two brokers; give one')
  return {
    seconds: wholeNumber('seconds', values.seconds, 1, 3_600),
    rounds: wholeNumber('rounds', values.rounds, 1, 99),
    metrics: values.metrics.split(',').map((count) => wholeNumber('metrics', count, 1, 5)),
    devices: wholeNumber('devices', values.devices, 1, 5_000),
    listeners: wholeNumber('listeners', values.listeners, 1, 2) as 1 | 2,
    window: wholeNumber('window', values.window, 1, 60_000),
    outstanding: wholeNumber('outstanding', values.outstanding, 100, 10_000_000),
    broker,
    emqx,
    profile,
    json,
  }
}

/** @throws Error naming the option */
export function wholeNumber(option: string, text: string, least: number, most: number): number {
  const value = Number(text.trim())
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new Error(`--${option} must be a whole number from ${least} to ${most}, not ${JSON.stringify(text)}`)
}
