import { ConfigError } from './config'
import { redactText } from './redaction'

/**
 * Runs the main of a service. What goes wrong before or while it runs is told on standard error so that a person can act
 * on it, and the process ends with code 1. When the work is done the process ends with 0, even if a socket lingers.
 */
export function runMain(name: string, main: () => Promise<void>): void {
  process.once('uncaughtException', (error) => fail(name, error))
  process.once('unhandledRejection', (reason) => fail(name, reason))
  main().then(
    () => process.exit(0),
    (error: unknown) => fail(name, error),
  )
}

/** Resolves at the first SIGTERM or SIGINT. A second signal while the service stops ends the process at once. */
export function onShutdownSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let first = true
    const received = (signal: NodeJS.Signals) => {
      if (!first) process.exit(1)
      first = false
      resolve(signal)
    }
    process.on('SIGTERM', received)
    process.on('SIGINT', received)
  })
}

function fail(name: string, error: unknown): void {
  process.exitCode = 1
  process.stderr.write(`${redactText(`${name} cannot go on. ${explain(error)}`)}\n`, () => process.exit(1))
}

function explain(error: unknown): string {
  if (error instanceof ConfigError) return error.message
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? `\n  because: ${error.cause.message}` : ''
  return `${error.stack ?? error.message}${cause}`
}
