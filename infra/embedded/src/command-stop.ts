import { parseArgs } from 'node:util'
import { CommonOptions } from './command-options'
import { goneWithin } from './foreign-process'
import { StackProblem } from './problem'
import { StackLock } from './stack-lock'
import { StateFolder } from './state-folder'

export const STOP_HELP = `npm stop -- [options]

Stops the stack that runs, in order, and waits until it is down. Its data is kept.

  --state DIR         where data is kept (default .ares/, or $ARES_STATE)
  --help
`

const LIMIT_MS = 90_000

/** Stops the stack that runs from another terminal. @returns the exit code */
export async function stop(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: CommonOptions.declared })
  if (values.help) {
    process.stdout.write(STOP_HELP)
    return 0
  }
  const state = new StateFolder(CommonOptions.stateDir(values))
  const holder = StackLock.holder(state)
  if (!holder) {
    const cleared = await StackLock.clearStale(state)
    process.stdout.write(
      cleared ? 'The stack had been killed; what it left running is stopped now.\n' : 'Nothing runs.\n',
    )
    return 0
  }
  process.stdout.write(`Stopping the stack of process ${holder.pid} ...\n`)
  process.kill(holder.pid, 'SIGTERM')
  if (!(await goneWithin(holder.pid, LIMIT_MS))) {
    throw new StackProblem(
      'The stack does not stop',
      `process ${holder.pid} still runs after ${LIMIT_MS / 1000} s`,
      `Send it a second signal, which kills its parts: kill ${holder.pid}`,
    )
  }
  process.stdout.write('Stopped.\n')
  return 0
}
