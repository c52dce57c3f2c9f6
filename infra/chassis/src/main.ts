import { ConfigError } from './config'
import { redactText } from './redaction'

/**
 * Runs the main of a service. What goes wrong before or while it runs is told on standard error so that a person can act
 * on it, and the process ends with code 1. When the work is done the process ends with 0, even if a socket lingers.
 */
export function runMain(name: string, main: () => Promise<void>): void {
  process.once('uncaughtException', (error) => fail(name, error))
  process.once('unhandledRejection', (reason) => fail(name, reason))
  listen()
  main().then(
    () => leave(Number(process.exitCode ?? 0)),
    (error: unknown) => fail(name, error),
  )
}

/**
 * Resolves at the first SIGTERM or SIGINT; one that came while the service was starting counts. A second signal ends the
 * process at once, and so does the first one when the start takes longer than two more seconds: there is nothing to drain.
 */
export function onShutdownSignal(): Promise<NodeJS.Signals> {
  listen()
  return new Promise((resolve) => {
    clearTimeout(impatience)
    // A service that waits for work lives, even when at this moment nothing else keeps the process.
    const alive = setInterval(() => {}, 3_600_000)
    awaited = (signal) => {
      clearInterval(alive)
      resolve(signal)
    }
    if (received) awaited(received)
  })
}

let listening = false
let received: NodeJS.Signals | undefined
let awaited: ((signal: NodeJS.Signals) => void) | undefined
let impatience: NodeJS.Timeout | undefined

const START_LIMIT_MS = 2_000

function listen(): void {
  if (listening) return
  listening = true
  process.on('SIGTERM', take)
  process.on('SIGINT', take)
}

function take(signal: NodeJS.Signals): void {
  if (received) process.exit(1)
  received = signal
  if (awaited) awaited(signal)
  else impatience = setTimeout(() => process.exit(1), START_LIMIT_MS)
}

function fail(name: string, error: unknown): void {
  process.exitCode = 1
  process.stderr.write(`${redactText(`${name} cannot go on. ${explain(error)}`)}\n`, () => leave(1))
}

/** winston hands its lines on in a later turn of the event loop: without waiting for it the last ones are lost. */
function leave(code: number): void {
  setImmediate(() => process.stdout.write('', () => process.exit(code)))
}

function explain(error: unknown): string {
  if (error instanceof ConfigError) return error.message
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? `\n  because: ${error.cause.message}` : ''
  return `${error.stack ?? error.message}${cause}`
}
