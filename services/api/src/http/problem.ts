import { DomainError, type ErrorKind } from '@ares/chassis'
import { z } from 'zod'
import { isDatabaseAway } from '../database/faults'

/** An error as RFC 9457 wants it, with the fields that are wrong and the id under which the log has the rest. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  /** Stable; callers may branch on it. */
  readonly code: string
  readonly requestId?: string
  readonly errors?: readonly FieldProblem[]
  readonly [extension: string]: unknown
}

/** One wrong value. @param field where it is: `body.metrics[0].name`, `query.limit` */
export interface FieldProblem {
  readonly field: string
  readonly message: string
}

export const problemSchema = z
  .object({
    type: z.string().meta({ example: 'urn:ares:problem:device_not_found' }),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().meta({ description: 'Stable; branch on it.', example: 'device_not_found' }),
    requestId: z.string().optional(),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Problem' })

/** The one table from kinds of domain errors to HTTP. */
const STATUS: Readonly<Record<ErrorKind, number>> = {
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  precondition: 412,
  too_many: 429,
  unavailable: 503,
}

const TITLE: Readonly<Record<number, string>> = {
  400: 'The request is not valid',
  401: 'Not logged in',
  403: 'Not allowed',
  404: 'Not found',
  405: 'Method not allowed',
  409: 'In conflict with what is there',
  412: 'Changed in the meantime',
  413: 'Too large',
  415: 'Unsupported media type',
  429: 'Too many requests',
  500: 'Internal error',
  503: 'Not available now',
}

/** @param error whatever a handler threw; what is not a DomainError stays in the log */
export function problemOf(error: unknown, requestId: string | undefined): Problem {
  if (error instanceof DomainError) {
    return problem(STATUS[error.kind], error.code, error.message, { ...error.details, requestId })
  }
  if (isDatabaseAway(error)) {
    return problem(503, 'database_unavailable', 'The database cannot be reached now. Try again.', { requestId })
  }
  const parser = bodyParserError(error)
  if (parser) return problem(parser.status, parser.code, parser.detail, { requestId })
  return problem(500, 'internal', 'Something went wrong here. The log has the details under the request id.', {
    requestId,
  })
}

export function problem(
  status: number,
  code: string,
  detail: string,
  extensions: Readonly<Record<string, unknown>> = {},
): Problem {
  return { type: `urn:ares:problem:${code}`, title: TITLE[status] ?? 'Error', status, detail, code, ...extensions }
}

/** @throws DomainError `invalid_request` that names every wrong field */
export function parsed<Schema extends z.ZodType>(where: 'query' | 'body' | 'headers', schema: Schema, value: unknown) {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const errors = result.error.issues.map((issue) => ({ field: fieldOf(where, issue.path), message: issue.message }))
  const first = errors[0]
  const detail = first
    ? `${first.field}: ${first.message}${errors.length > 1 ? ` (and ${errors.length - 1} more)` : ''}`
    : ''
  throw new DomainError('invalid', 'invalid_request', detail, { errors })
}

function fieldOf(where: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (field, key) => (typeof key === 'number' ? `${field}[${key}]` : `${field}.${String(key)}`),
    where,
  )
}

/** express.json() throws errors of its own with a `type`. */
function bodyParserError(error: unknown): { status: number; code: string; detail: string } | undefined {
  if (!(error instanceof Error) || !('type' in error)) return undefined
  switch (error.type) {
    case 'entity.parse.failed':
      return { status: 400, code: 'invalid_json', detail: `body: not JSON (${error.message})` }
    case 'entity.too.large':
      return { status: 413, code: 'body_too_large', detail: 'The body is larger than this route takes.' }
    case 'encoding.unsupported':
    case 'charset.unsupported':
      return { status: 415, code: 'unsupported_encoding', detail: error.message }
    case 'request.aborted':
    case 'request.size.invalid':
      return { status: 400, code: 'incomplete_body', detail: 'The body ended early.' }
    default:
      return undefined
  }
}
