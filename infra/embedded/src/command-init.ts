import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { CommonOptions } from './command-options'
import { confirmed } from './confirmation'
import { StackProblem } from './problem'
import { terminalProgress } from './progress'
import { Stack } from './stack'
import { StackLock } from './stack-lock'
import { StateFolder } from './state-folder'

export const INIT_HELP = `npm run init -- [options]

Removes everything this stack has kept, and prepares it anew: PostgreSQL's cluster, a Vault with fresh keys, CA,
certificates and policies. Leaves nothing running; then: npm start.
At a terminal it asks first.

  --yes               do not ask
  --state DIR         where data is kept (default .ares/, or $ARES_STATE)
  --help
`

/** Makes a fresh state. @returns the exit code */
export async function init(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { ...CommonOptions.declared, yes: { type: 'boolean', default: false } },
  })
  if (values.help) {
    process.stdout.write(INIT_HELP)
    return 0
  }
  const state = new StateFolder(CommonOptions.stateDir(values))
  const holder = StackLock.holder(state)
  if (holder) {
    throw new StackProblem(
      'The stack runs',
      `process ${holder.pid} has it since ${holder.startedAt}, and its data cannot be removed under it`,
      'Stop it first: npm stop',
    )
  }
  await StackLock.clearStale(state)
  if (existsSync(state.path)) {
    process.stdout.write(
      `This removes ${state.path}: all users, devices and telemetry, the CA and every certificate it has signed.\n`,
    )
    if (!values.yes && !(await confirmed('Go on?'))) return 1
    state.remove()
  }
  const began = performance.now()
  const progress = terminalProgress()
  const stack = new Stack({ stateDir: state.path, ports: { http: 0, mqtt: 0, wss: 0 }, progress })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void stack.stop())
  try {
    await stack.prepare()
  } finally {
    progress.stop()
  }
  process.stdout.write(`Prepared in ${((performance.now() - began) / 1000).toFixed(1)} s. Now: npm start\n`)
  return 0
}
