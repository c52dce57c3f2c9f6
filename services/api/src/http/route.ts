import { z } from 'zod'
import type { Role } from '../generated/prisma/enums'

/**
 * A route is declared once: its path, who may call it, the shapes of what goes in and comes out, and what it does.
 * Validation, types, authorization, metrics and the OpenAPI document all come from this declaration.
 *
 *   defineRoute({
 *     method: 'get',
 *     path: '/devices/{deviceId}/telemetry',
 *     tag: 'telemetry',
 *     summary: 'Reads the telemetry of a device.',
 *     access: scoped('device', 'deviceId', 'viewer'),
 *     query: z.object({ limit: limitQuery(100, 1_000), cursor: z.string().optional() }),
 *     answer: { status: 200, body: pageOf(sample), description: 'A page of samples.' },
 *     handle: ({ params, query, organizationId }) => service.read(params.deviceId, query),
 *   })
 *
 * In this order: token (401), path (404), resource -> organization -> role (404 for a stranger, 403 for too low a role),
 * query and body (400), `handle`. The answer is passed through its schema: what is not in it does not leave the house.
 */
export function defineRoute<
  const Path extends string,
  const A extends Access,
  Query extends z.ZodObject = EmptyObject,
  Headers extends z.ZodObject = EmptyObject,
  Body extends z.ZodType = z.ZodUndefined,
  Answer extends z.ZodType = z.ZodUndefined,
>(spec: RouteSpec<Path, A, Query, Headers, Body, Answer>): Route {
  const names = [...spec.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '')
  const given: Readonly<Record<string, z.ZodType<string> | undefined>> = spec.params ?? {}
  const params = z.object(Object.fromEntries(names.map((name) => [name, given[name] ?? z.uuid().toLowerCase()])))
  // The one place where a declaration loses its exact types: the schemas above have checked what is handed over.
  const handle = spec.handle as unknown as Route['handle']
  return { ...spec, params, handle } as Route
}

/** Who may call a route. */
export type Access =
  /** Anybody, without a token. */
  | 'public'
  /** Any person who is logged in. */
  | 'signed-in'
  /** Who has at least this role in the organization that owns the resource named in the path. */
  | ScopedAccess

export interface ScopedAccess {
  readonly scope: { readonly kind: ScopeKind; readonly parameter: string }
  readonly role: Role
}

/** What a path parameter can name; each belongs to exactly one organization (see access.ts). */
export type ScopeKind = 'organization' | 'blueprint' | 'device' | 'dead_letter'

/** @param parameter name of the path parameter that holds the resource's id */
export function scoped<const Kind extends ScopeKind>(kind: Kind, parameter: string, role: Role): ScopedAccess {
  return { scope: { kind, parameter }, role }
}

/** A person who is logged in, as the rooms see him. `address` and `sessionId` are for the audit. */
export interface UserActor {
  readonly kind: 'user'
  readonly id: string
  readonly email: string
  readonly sessionId: string
  readonly address?: string
}

/** What a handler gets. */
export type RouteInput<Path extends string, A extends Access, Query, Headers, Body> = {
  readonly params: { readonly [Name in ParameterOf<Path>]: string }
  readonly query: Query
  readonly headers: Headers
  readonly body: Body
  /** Where the request came from. */
  readonly address: string
  /** Aborted when the caller is gone. */
  readonly signal: AbortSignal
  /** Sets a header of the answer. */
  readonly setHeader: (name: string, value: string) => void
  /** For a route whose answer may be `accepted` only. */
  readonly setStatus: (status: 202) => void
} & Grant<A>

type Grant<A extends Access> = A extends ScopedAccess
  ? { readonly actor: UserActor; readonly organizationId: string; readonly role: Role }
  : A extends 'signed-in'
    ? { readonly actor: UserActor }
    : unknown

type ParameterOf<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? Name | ParameterOf<Rest>
  : never

type EmptyObject = z.ZodObject<Record<never, never>>

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

interface RouteSpec<
  Path extends string,
  A extends Access,
  Query extends z.ZodObject,
  Headers extends z.ZodObject,
  Body extends z.ZodType,
  Answer extends z.ZodType,
> {
  readonly method: Method
  /** Under /api/v1, parameters in braces. */
  readonly path: Path
  /** Groups the routes of a room in the documentation. */
  readonly tag: string
  /** One sentence. */
  readonly summary: string
  readonly description?: string
  readonly access: A
  /** Only for parameters that are not UUIDs. */
  readonly params?: { readonly [Name in ParameterOf<Path>]?: z.ZodType<string> }
  readonly query?: Query
  /** Names in lower case. */
  readonly headers?: Headers
  readonly body?: Body
  readonly answer: {
    readonly status: 200 | 201 | 202 | 204
    /** Absent: no body. */
    readonly body?: Answer
    readonly description: string
    /** Absent: never. Otherwise when the same body comes with 202. */
    readonly accepted?: string
  }
  /** Problems beside the usual ones that a caller should know of: code -> when. */
  readonly problems?: Readonly<Record<string, string>>
  /** Told of each request whose query, headers or body are not what is declared: `handle` never sees it. */
  readonly onUnreadable?: (address: string, error: unknown) => void
  readonly handle: (
    input: RouteInput<Path, A, z.output<Query>, z.output<Headers>, z.output<Body>>,
  ) => Promise<z.input<Answer>> | z.input<Answer>
}

/** A declared route, as the HTTP application and the OpenAPI document use it. */
export interface Route {
  readonly method: Method
  readonly path: string
  readonly tag: string
  readonly summary: string
  readonly description?: string
  readonly access: Access
  readonly params: z.ZodObject
  readonly query?: z.ZodObject
  readonly headers?: z.ZodObject
  readonly body?: z.ZodType
  readonly answer: {
    readonly status: number
    readonly body?: z.ZodType
    readonly description: string
    readonly accepted?: string
  }
  readonly problems?: Readonly<Record<string, string>>
  readonly onUnreadable?: (address: string, error: unknown) => void
  readonly handle: (input: object) => unknown
}
