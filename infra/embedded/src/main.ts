import { CA_HELP, ca } from './command-ca'
import { DOCTOR_HELP, doctor } from './command-doctor'
import { INIT_HELP, init } from './command-init'
import { START_HELP, start } from './command-start'
import { STOP_HELP, stop } from './command-stop'
import { StackProblem } from './problem'

const COMMANDS: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  start,
  init,
  stop,
  doctor,
  ca,
}

async function main(): Promise<number> {
  const [name = 'start', ...args] = process.argv.slice(2)
  const command = COMMANDS[name]
  if (command) return command(args)
  process.stdout.write([START_HELP, INIT_HELP, STOP_HELP, DOCTOR_HELP, CA_HELP].join('\n'))
  return name === '--help' || name === 'help' ? 0 : 1
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`\n${explained(error)}\n`)
    process.exit(1)
  },
)

function explained(error: unknown): string {
  if (error instanceof StackProblem) return `${error.what}\n  why:  ${error.why}\n  do:   ${error.remedy}`
  const code = (error as { code?: string }).code ?? ''
  // A mistyped option: node's own sentence is good enough, its stack is of no use.
  if (code.startsWith('ERR_PARSE_ARGS')) return `${(error as Error).message}\n  do:   npm start -- --help`
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
