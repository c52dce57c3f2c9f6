import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { z } from 'zod'

/** Every problem of a service's settings at once, each with the name of its variable. */
export class ConfigError extends Error {
  constructor(readonly problems: readonly string[]) {
    super(`The settings are not usable:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.name = 'ConfigError'
  }
}

/** Where a server listens; port 0 means any free one. */
export interface Bind {
  readonly host: string
  readonly port: number
}

/**
 * Reads the settings of a service. The keys of the schema are the names of the variables; `X_FILE` may name a file
 * that holds the value of `X` instead (a Docker secret). An empty variable counts as not set.
 * @throws ConfigError with every problem, not only the first
 */
export function readEnvironment<S extends z.ZodObject>(schema: S, env: NodeJS.ProcessEnv): z.output<S> {
  const problems: string[] = []
  const given: Record<string, string> = {}
  for (const name of Object.keys(schema.shape)) {
    const value = settingOf(name, Object.keys(schema.shape), env, problems)
    if (value !== undefined) given[name] = value
  }
  const result = schema.safeParse(given)
  if (!result.success) {
    const alreadyNamed = new Set(problems.map((problem) => problem.split(':', 1)[0]))
    for (const issue of result.error.issues) {
      const name = String(issue.path[0] ?? '(settings)')
      if (!alreadyNamed.has(name)) problems.push(`${name}: ${name in given ? issue.message : missing(issue.message)}`)
    }
  }
  if (problems.length > 0 || !result.success) throw new ConfigError(problems)
  return result.data
}

/** zod says "expected string, received undefined" for a variable that is not there. */
const missing = (message: string): string => (message.includes('undefined') ? 'is not set' : message)

function settingOf(
  name: string,
  known: readonly string[],
  env: NodeJS.ProcessEnv,
  problems: string[],
): string | undefined {
  const direct = env[name] === '' ? undefined : env[name]
  const fileVariable = `${name}_FILE`
  // ARES_VAULT_CA and ARES_VAULT_CA_FILE could both be settings of their own: then the second is no file of the first.
  const file = known.includes(fileVariable) ? undefined : env[fileVariable]
  if (!file) return direct
  if (direct !== undefined) {
    problems.push(`${name}: both ${name} and ${fileVariable} are set; keep one of them`)
    return direct
  }
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    problems.push(`${name}: ${fileVariable} names ${file}, which cannot be read (${codeOf(error)})`)
    return undefined
  }
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/** Building blocks for schemas of settings. Each takes the text of a variable. */
export const variable = {
  text: () => z.string().trim().min(1, 'must not be empty'),

  /** TCP port, 0 for any free one. */
  port: () => wholeNumber(0, 65_535, 'must be a port from 0 to 65535'),

  /** `host:port`, `[::1]:port` */
  bind: () => hostAndPort(0),

  /** `host:port` of a peer: like bind, but the port must be a real one. Stays text, as clients want it. */
  address: () =>
    z
      .string()
      .trim()
      .refine((text) => parseHostAndPort(text, 1) !== undefined, 'must be host:port, for example api:9090'),

  /** Comma-separated host:port entries. */
  addresses: () =>
    z
      .string()
      .transform(splitList)
      .refine(
        (items) => items.every((item) => parseHostAndPort(item, 1) !== undefined),
        'must be a list like host:port,host:port',
      ),

  /** Milliseconds: a number with a unit (`250ms`, `20s`, `5m`, `2h`, `1d`) or plain milliseconds. */
  durationMs: () =>
    z.string().transform((text, context) => {
      const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/.exec(text.trim()) ?? []
      if (amount === undefined) {
        context.addIssue({ code: 'custom', message: 'must be a duration such as 250ms, 20s, 5m, 2h or 1d' })
        return z.NEVER
      }
      return Number(amount) * (UNIT_MS[unit ?? 'ms'] ?? 1)
    }),

  /** An absolute URL. @param protocols e.g. ['https:'] */
  url: (protocols?: readonly string[]) =>
    z
      .string()
      .trim()
      .refine(
        (text) => {
          return URL.canParse(text) && (!protocols || protocols.includes(new URL(text).protocol))
        },
        `must be a URL${protocols ? ` that begins with ${protocols.map((p) => `${p}//`).join(' or ')}` : ''}`,
      ),

  /** Path of a file that exists and can be read now. */
  file: () =>
    z.string().superRefine((path, context) => {
      const problem = fileProblem(path)
      if (problem) context.addIssue({ code: 'custom', message: problem })
    }),

  /** Path of a file that may appear later (see waitForFile). */
  path: () => z.string().min(1),

  /** Comma-separated words. */
  list: () => z.string().transform(splitList),

  integer: (range: { min?: number; max?: number } = {}) =>
    wholeNumber(
      range.min ?? Number.MIN_SAFE_INTEGER,
      range.max ?? Number.MAX_SAFE_INTEGER,
      `must be a whole number${range.min !== undefined ? ` from ${range.min}` : ''}${range.max !== undefined ? ` up to ${range.max}` : ''}`,
    ),

  boolean: () =>
    z.string().transform((text, context) => {
      const word = text.trim().toLowerCase()
      if (['true', '1', 'yes', 'on'].includes(word)) return true
      if (['false', '0', 'no', 'off'].includes(word)) return false
      context.addIssue({ code: 'custom', message: 'must be true or false' })
      return z.NEVER
    }),

  logLevel: () => z.enum(['error', 'warn', 'info', 'debug']),
}

/** Settings that every service has; spread into its schema. */
export const commonVariables = {
  ARES_LOG_LEVEL: variable.logLevel().default('info'),
  ARES_OPS_BIND: variable.bind().prefault('127.0.0.1:0'),
  ARES_VAULT_ADDR: variable.url(['https:', 'http:']),
  /** CA of the Vault server's own certificate. */
  ARES_VAULT_CA_FILE: variable.path().optional(),
  /** `parent`, or a directory with the files role-id and wrapped-secret-id. */
  ARES_VAULT_CREDENTIALS: variable.text(),
  /** full_chain_ca.crt: root and intermediate. It may appear after the start: see loadCaFile. */
  ARES_CA_FILE: variable.path(),
} as const

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const splitList = (text: string): string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')

const wholeNumber = (min: number, max: number, message: string) =>
  z.string().transform((text, context) => {
    const value = Number(text)
    if (text.trim() === '' || !Number.isSafeInteger(value) || value < min || value > max) {
      context.addIssue({ code: 'custom', message })
      return z.NEVER
    }
    return value
  })

// A declaration, because commonVariables above calls it while this file is loaded.
function hostAndPort(lowestPort: number) {
  return z.string().transform((text, context): Bind => {
    const parsed = parseHostAndPort(text, lowestPort)
    if (parsed) return parsed
    context.addIssue({ code: 'custom', message: 'must be host:port, for example 0.0.0.0:8080' })
    return z.NEVER
  })
}

function parseHostAndPort(text: string, lowestPort: number): Bind | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s[\]]+)):(\d{1,5})$/.exec(text.trim()) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  return host !== undefined && port >= lowestPort && port <= 65_535 ? { host, port } : undefined
}

function fileProblem(path: string): string | undefined {
  try {
    if (statSync(path).isDirectory()) return `${path} is a directory, a file is wanted`
    accessSync(path, constants.R_OK)
    return undefined
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') return `the file ${path} does not exist`
    return `the file ${path} cannot be read (${code})`
  }
}
