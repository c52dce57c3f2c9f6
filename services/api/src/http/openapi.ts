import { OpenAPIRegistry, OpenApiGeneratorV31, type RouteConfig } from '@asteasolutions/zod-to-openapi'
import { problemSchema } from './problem'
import type { Route } from './route'

/** The OpenAPI 3.1 document of the routes, from the schemas that validate. */
export function openApiDocument(routes: readonly Route[]): object {
  const registry = new OpenAPIRegistry()
  registry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'accessToken of POST /sessions',
  })
  for (const route of routes) registry.registerPath(pathOf(route))
  return new OpenApiGeneratorV31(registry.definitions).generateDocument({
    openapi: '3.1.0',
    info: {
      title: 'Ares',
      version: 'v1',
      description:
        'From a device’s certificate to a committed row. Errors are problem details (RFC 9457) with a stable `code`.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/api/v1' }],
  })
}

function pathOf(route: Route): RouteConfig {
  return {
    method: route.method,
    path: route.path,
    operationId: operationId(route),
    tags: [route.tag],
    summary: route.summary,
    description: descriptionOf(route),
    ...(route.access === 'public' ? {} : { security: [{ bearer: [] }] }),
    request: {
      params: route.params,
      ...(route.query ? { query: route.query } : {}),
      ...(route.headers ? { headers: route.headers } : {}),
      ...(route.body ? { body: { required: true, content: { 'application/json': { schema: route.body } } } } : {}),
    },
    responses: {
      [route.answer.status]: goodAnswer(route, route.answer.description),
      ...(route.answer.accepted ? { 202: goodAnswer(route, route.answer.accepted) } : {}),
      ...Object.fromEntries(
        problemStatuses(route).map(([status, description]) => [status, problemAnswer(description)]),
      ),
    },
  }
}

function problemStatuses(route: Route): Array<[string, string]> {
  return [
    ...(route.body || route.query ? [['400', 'A value is wrong; `errors` names each.'] as [string, string]] : []),
    ...(route.access === 'public' ? [] : [['401', 'No token, or one that has ended.'] as [string, string]]),
    ...(typeof route.access === 'string'
      ? []
      : ([
          ['403', 'The role in the organization is too low.'],
          ['404', 'Not there, or not yours to see.'],
        ] as Array<[string, string]>)),
    ['default', 'Any other problem.'],
  ]
}

const goodAnswer = ({ answer }: Route, description: string) => ({
  description,
  ...(answer.body ? { content: { 'application/json': { schema: answer.body } } } : {}),
})

const problemAnswer = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: problemSchema } },
})

function descriptionOf({ description, access, problems }: Route): string {
  const needs = typeof access === 'string' ? undefined : `Needs the role **${access.role}**.`
  const codes = Object.entries(problems ?? {}).map(([code, when]) => `- \`${code}\`: ${when}`)
  return [description, needs, codes.length > 0 ? `Problems:\n${codes.join('\n')}` : undefined]
    .filter((part) => part !== undefined)
    .join('\n\n')
}

/** `get /devices/{deviceId}/telemetry` -> `getDevicesTelemetry`, with `ByDeviceId` where the path ends in a parameter. */
function operationId({ method, path }: Route): string {
  const parts = path.split('/').filter((part) => part !== '')
  const words = parts.flatMap((part, at) => {
    if (!part.startsWith('{')) return [capital(part)]
    return at === parts.length - 1 ? [`By${capital(part.slice(1, -1))}`] : []
  })
  return `${method}${words.join('')}`
}

const capital = (word: string): string => word.replace(/(?:^|-)(\w)/g, (_match, letter: string) => letter.toUpperCase())
