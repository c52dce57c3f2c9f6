import { join } from 'node:path'
import { StackProblem } from './problem'
import { REPOSITORY } from './repository'

/** What all commands take. */
export const CommonOptions = {
  declared: {
    state: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  stateDir: (values: { readonly state?: string }): string =>
    values.state ?? process.env.ARES_STATE ?? join(REPOSITORY, '.ares'),
} as const

export function wholeNumber(option: string, text: string, lowest: number, highest: number): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= lowest && value <= highest) return value
  throw new StackProblem(
    `${option} cannot be "${text}"`,
    `it must be a whole number from ${lowest} to ${highest}`,
    'See: npm start -- --help',
  )
}
