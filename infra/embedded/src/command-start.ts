import { parseArgs } from 'node:util'
import { firstRow, reportArrivals } from './arrivals'
import { CommonOptions, wholeNumber } from './command-options'
import { StackProblem } from './problem'
import { terminalProgress } from './progress'
import { Stack } from './stack'
import type { PartEvent } from './supervised-part'

export const START_HELP = `npm start -- [options]

Starts the whole of Ares on this machine: PostgreSQL, Vault, broker, the three services and simulated devices.
What it makes is kept in .ares/ until "npm run init". Ctrl-C stops everything.

  --devices N         how many simulated devices (default 5; 0 = none)
  --listeners N       1 or 2 listeners share the subscription (default 1)
  --http-port N       REST and its documentation (default 8080)
  --http-host ADDRESS address REST listens on (default 127.0.0.1: it is plain HTTP, put TLS before it)
  --mqtt-port N       MQTT over mutual TLS (default 8883)
  --wss-port N        MQTT over secure WebSocket (default 8084)
  --emqx COMMAND      run a real EMQX instead of the embedded broker: COMMAND runs it in the foreground with the file
                      named by $EMQX_CONF; how this machine differs comes in EMQX_... variables
  --state DIR         where data is kept (default .ares/, or $ARES_STATE)
  --help
`

const print = (line = '') => process.stdout.write(`${line}\n`)

/** Starts the stack and runs until a signal. @returns the exit code */
export async function start(args: readonly string[]): Promise<number> {
  const began = performance.now()
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...CommonOptions.declared,
      devices: { type: 'string', default: '5' },
      listeners: { type: 'string', default: '1' },
      'http-port': { type: 'string', default: '8080' },
      'http-host': { type: 'string', default: '127.0.0.1' },
      'mqtt-port': { type: 'string', default: '8883' },
      'wss-port': { type: 'string', default: '8084' },
      emqx: { type: 'string' },
    },
  })
  if (values.help) {
    print(START_HELP)
    return 0
  }
  const devices = wholeNumber('--devices', values.devices, 0, 100_000)
  const progress = terminalProgress()
  const stack = new Stack({
    stateDir: CommonOptions.stateDir(values),
    devices,
    listeners: wholeNumber('--listeners', values.listeners, 1, 2) as 1 | 2,
    ports: {
      http: wholeNumber('--http-port', values['http-port'], 0, 65_535),
      mqtt: wholeNumber('--mqtt-port', values['mqtt-port'], 0, 65_535),
      wss: wholeNumber('--wss-port', values['wss-port'], 0, 65_535),
    },
    httpHost: values['http-host'],
    emqx: values.emqx,
    progress,
    onEvent: (event) => print(`  ! ${sentenceOf(event)}`),
  })
  const leaving = stopOnSignal(stack)
  print(stack.state.prepared ? `Ares starts (${stack.state.path})` : `Ares prepares itself (${stack.state.path})`)
  try {
    await stack.start()
    const arrivals = devices > 0 ? await showRows(stack, began) : undefined
    if (devices === 0) showAddresses(stack, began)
    await leaving.begun
    arrivals?.stop()
    await leaving.done
    return 0
  } catch (error) {
    if (leaving.asked()) {
      await leaving.done
      return 0
    }
    await stack.stop()
    throw error
  } finally {
    progress.stop()
  }
}

/** One Ctrl-C arrives more than once: from the terminal, from npm and from scripts/run.mjs, which pass theirs on. */
const SAME_KEYSTROKE_MS = 1_000

/** The first signal stops in order, a second one at once. */
function stopOnSignal(stack: Stack): { begun: Promise<void>; done: Promise<void>; asked(): boolean } {
  let askedAt: number | undefined
  const begun = new Promise<void>((resolve) => {
    const received = () => {
      if (askedAt === undefined) {
        askedAt = Date.now()
        print('\nStopping: devices, listener, broker, authorizer, api, Vault, PostgreSQL (Ctrl-C again kills them)')
        resolve()
      } else if (Date.now() - askedAt > SAME_KEYSTROKE_MS) {
        print('Killed. The next start puts things in order.')
        stack.abandon()
        process.exit(1)
      }
    }
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, received)
  })
  const done = begun.then(async () => {
    const began = performance.now()
    await stack.stop()
    print(`Stopped in ${seconds(performance.now() - began)}. The data is kept in ${stack.state.path}`)
  })
  return { begun, done, asked: () => askedAt !== undefined }
}

async function showRows(stack: Stack, began: number): Promise<{ stop(): void }> {
  const row = await firstRow(stack).catch((error: Error) => {
    if (stack.stopAsked) throw error
    throw new StackProblem(
      'The simulated devices',
      error.message,
      `Look into ${stack.state.logs}: simulator, listener, authorizer, api`,
    )
  })
  showAddresses(stack, began)
  const token = await stack.client().accessToken()
  print('  Rows, as they came in (the token ends soon; log in with POST /api/v1/sessions for another):')
  print()
  print(
    `curl -s -H 'Authorization: Bearer ${token}' '${stack.urls.rest}/api/v1/devices/${row.deviceId}/telemetry?limit=3'`,
  )
  print()
  print(`  ${row.item.capturedAt}  ${row.item.component}  ${JSON.stringify(row.item.metrics)}`)
  print()
  return reportArrivals(stack, print)
}

function showAddresses(stack: Stack, began: number): void {
  const { urls, login, state } = stack
  print()
  print(`Ares runs, after ${seconds(performance.now() - began)}.`)
  print()
  print(`  REST           ${urls.rest}/api/v1`)
  print(`  documentation  ${urls.docs}`)
  print(`  MQTT           ${urls.mqtt}   (mutual TLS; CA: ${stack.caFile})`)
  print(`  first login    ${login.email}   password in ${state.firstLogin}`)
  print(`  logs           ${state.logs}`)
  print()
}

function sentenceOf(event: PartEvent): string {
  switch (event.kind) {
    case 'died':
      return `${event.part} died (${event.why}) and is started again. Its last words:\n${event.lastLines.map((line) => `      ${line.slice(0, 300)}`).join('\n')}`
    case 'back':
      return `${event.part} is back after ${seconds(event.afterMs)}`
    case 'failed':
      return `${event.part} does not come back: ${event.why}`
  }
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
