import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ApiClient } from '@ares/simulator'
import { CommonOptions } from './command-options'
import type { Login } from './first-login'
import { StackProblem } from './problem'
import { StateFolder } from './state-folder'

export const DOCTOR_HELP = `npm run doctor -- [options]

Says what is wrong in the fleet or soon will be, each with its cause and what to do. Exit code 2 when something is critical.

  --api URL           REST address (default http://127.0.0.1:8080, where npm start serves)
  --login FILE        JSON with email and password (default: first-login.json of the stack that npm start runs)
  --organization ID   only this one (default: all that the person is a member of)
  --json              print the answer as it came
  --state DIR         where the stack keeps its data (default .ares/, or $ARES_STATE)
  --help
`

interface Diagnosis {
  readonly checkedAt: string
  readonly items: ReadonlyArray<{
    readonly code: string
    readonly severity: string
    readonly subject: { readonly kind: string; readonly id: string; readonly name: string | null }
    readonly cause: string
    readonly remedy: string
  }>
  readonly skipped: ReadonlyArray<{ readonly check: string; readonly why: string }>
}

/** Asks the fleet doctor of a running Ares. @returns the exit code */
export async function doctor(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...CommonOptions.declared,
      api: { type: 'string', default: 'http://127.0.0.1:8080' },
      login: { type: 'string' },
      organization: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(DOCTOR_HELP)
    return 0
  }
  const file = values.login ?? new StateFolder(CommonOptions.stateDir(values)).firstLogin
  const diagnosis = await ask(values.api, readLogin(file), values.organization)
  process.stdout.write(values.json ? `${JSON.stringify(diagnosis, null, 2)}\n` : report(diagnosis))
  return diagnosis.items.some(({ severity }) => severity === 'critical') ? 2 : 0
}

/** For people: the worst first. */
export function report({ checkedAt, items, skipped }: Diagnosis): string {
  const findings = items.map(({ severity, code, subject, cause, remedy }) =>
    [
      `${severity.toUpperCase().padEnd(8)} ${code}: ${subject.kind} ${subject.name ?? subject.id}`,
      `  why:  ${cause}`,
      `  do:   ${remedy}`,
      '',
    ].join('\n'),
  )
  const blind = skipped.map(({ check, why }) => `NOT LOOKED AT ${check}: ${why}`)
  const summary =
    items.length === 0 ? 'Nothing is wrong' : `${items.length} ${items.length === 1 ? 'finding' : 'findings'}`
  return `${[...findings, ...blind, `${summary} (${checkedAt})`].join('\n')}\n`
}

async function ask(url: string, login: Login, organization: string | undefined): Promise<Diagnosis> {
  try {
    const query = organization ? `?${new URLSearchParams({ organizationId: organization })}` : ''
    return await new ApiClient(url, login).get<Diagnosis>(`/fleet/findings${query}`)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new StackProblem(
      'The fleet doctor cannot be asked',
      why,
      'Is Ares running there? Name another place with --api URL',
    )
  }
}

function readLogin(file: string): Login {
  try {
    const { email, password } = JSON.parse(readFileSync(file, 'utf8')) as Login
    return { email, password }
  } catch {
    throw new StackProblem(
      'There is nobody to log in as',
      `${file} is missing or is no JSON with email and password`,
      'Start the stack (npm start), or give --login FILE',
    )
  }
}
