import { DomainError, type Logger, REQUEST_ID_HEADER, requestId, withRequestId } from '@ares/chassis'
import express, { type Express, type NextFunction, type Request, type Response } from 'express'
import helmet from 'helmet'
import { Histogram, type Registry } from 'prom-client'
import { type AccessControl, type Authenticate, notFound } from './access'
import { docsPage } from './docs'
import { openApiDocument } from './openapi'
import { parsed, problem, problemOf } from './problem'
import type { Route, UserActor } from './route'

export const API_ROOT = '/api/v1'

export interface HttpOptions {
  readonly routes: readonly Route[]
  readonly authenticate: Authenticate
  readonly access: AccessControl
  readonly logger: Logger
  readonly metrics: Registry
  /** How many proxies stand in front; their X-Forwarded-For is believed. Default 0. */
  readonly trustedProxies?: number
}

/** The HTTP face of the rooms: their routes under /api/v1, the OpenAPI document and a page to try it. */
export function httpApplication(options: HttpOptions): Express {
  const app = express()
  app.disable('x-powered-by')
  app.set('etag', false)
  app.set('query parser', 'simple')
  app.set('trust proxy', options.trustedProxies ?? 0)
  app.use(underRequestId)
  app.use(observed(options))
  app.use('/docs', docsPage())
  app.use(helmet())
  for (const route of options.routes) {
    app[route.method](expressPath(route.path), (request, response, next) => {
      answer(route, request, response, options).catch(next)
    })
  }
  const document = openApiDocument(options.routes)
  app.get(`${API_ROOT}/openapi.json`, (_request, response) => void response.json(document))
  app.get('/', (_request, response) => response.redirect('/docs/'))
  for (const [path, methods] of methodsByPath(options.routes)) {
    app.all(expressPath(path), (request, response) => {
      response.setHeader('allow', methods.join(', '))
      sendProblem(response, problem(405, 'method_not_allowed', `${request.method} is not possible here.`, here()))
    })
  }
  app.use((request: Request, response: Response) => {
    sendProblem(response, problem(404, 'route_not_found', `There is nothing at ${request.path}.`, here()))
  })
  app.use((error: unknown, request: Request, response: Response, _next: NextFunction) => {
    fail(error, request, response, options.logger)
  })
  return app
}

async function answer(route: Route, request: Request, response: Response, options: HttpOptions): Promise<void> {
  response.locals.route = `${API_ROOT}${route.path}`
  const address = request.ip ?? 'unknown'
  const granted = await admitted(route, request, address, options)
  let { status } = route.answer
  const input = {
    ...granted,
    address,
    ...(await read(route, request, response).catch((error: unknown) => {
      route.onUnreadable?.(address, error)
      throw error
    })),
    signal: closedSignal(response),
    setHeader: (name: string, value: string) => void response.setHeader(name, value),
    setStatus: (wanted: 202) => {
      status = wanted
    },
  }
  const result = await route.handle(input)
  response.status(status).setHeader('cache-control', 'no-store')
  if (route.answer.body) response.json(route.answer.body.parse(result))
  else response.end()
}

/** Token, path, then resource -> organization -> role. Nothing of the request is looked at before that. */
async function admitted(route: Route, request: Request, address: string, options: HttpOptions): Promise<object> {
  if (route.access === 'public') return { params: paramsOf(route, request) }
  const actor: UserActor = { ...(await options.authenticate(bearerToken(request))), address }
  const params = paramsOf(route, request)
  if (route.access === 'signed-in') {
    await options.access.signedIn(actor.id)
    return { actor, params }
  }
  const id = params[route.access.scope.parameter]
  if (id === undefined) throw new Error(`${route.path} has no parameter ${route.access.scope.parameter}`)
  return { actor, params, ...(await options.access.scoped(actor.id, route.access, id)) }
}

async function read(route: Route, request: Request, response: Response): Promise<object> {
  return {
    query: route.query ? parsed('query', route.query, request.query) : {},
    headers: route.headers ? parsed('headers', route.headers, request.headers) : {},
    body: route.body ? parsed('body', route.body, await jsonBody(request, response)) : undefined,
  }
}

/** An id that cannot be one is an id that is not there. */
function paramsOf(route: Route, request: Request): Record<string, string> {
  const result = route.params.safeParse(request.params)
  if (result.success) return result.data as Record<string, string>
  throw notFound(route.access === 'public' || route.access === 'signed-in' ? 'resource' : route.access.scope.kind)
}

const parseJson = express.json({ limit: '256kb', type: ['application/json', 'application/*+json'] })

/** Read only when the caller is known to be allowed: nobody else gets memory for it. */
async function jsonBody(request: Request, response: Response): Promise<unknown> {
  await new Promise<void>((resolve, reject) => {
    parseJson(request, response, (error?: unknown) => (error ? reject(error) : resolve()))
  })
  if (request.body === undefined && Number(request.headers['content-length'] ?? 0) > 0) {
    throw new DomainError('invalid', 'not_json', 'The body must be JSON, sent with `content-type: application/json`.')
  }
  return request.body
}

function bearerToken(request: Request): string {
  const [, token] = /^Bearer ([\w.~+/-]+=*)$/i.exec(request.headers.authorization ?? '') ?? []
  if (token) return token
  throw new DomainError(
    'unauthenticated',
    'no_token',
    'Log in with POST /api/v1/sessions and send its accessToken as `Authorization: Bearer ...`.',
  )
}

function closedSignal(response: Response): AbortSignal {
  const controller = new AbortController()
  response.once('close', () => controller.abort())
  return controller.signal
}

function underRequestId(request: Request, response: Response, next: NextFunction): void {
  const given = request.headers[REQUEST_ID_HEADER]
  withRequestId(typeof given === 'string' ? given : undefined, () => {
    const id = requestId()
    if (id) response.setHeader(REQUEST_ID_HEADER, id)
    next()
  })
}

/** Access log and duration by route; a path that is no route of ours is one label, whatever it says. */
function observed({ logger, metrics }: HttpOptions) {
  const duration = new Histogram({
    name: 'ares_http_request_duration_seconds',
    help: 'Time from the first byte of a request to the last of its answer.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [metrics],
  })
  return (request: Request, response: Response, next: NextFunction) => {
    const began = process.hrtime.bigint()
    const { method } = request
    const path = request.originalUrl.split('?', 1)[0]
    const id = requestId()
    response.once('close', () => {
      const seconds = Number(process.hrtime.bigint() - began) / 1e9
      const route: string = response.locals.route ?? 'other'
      const status = response.writableFinished ? response.statusCode : 499
      duration.observe({ method, route, status }, seconds)
      logger.info('http', { method, path, status, ms: Math.round(seconds * 1_000), address: request.ip, requestId: id })
    })
    next()
  }
}

function fail(error: unknown, request: Request, response: Response, logger: Logger): void {
  const described = problemOf(error, requestId())
  if (described.status >= 500) logger.error('a request failed', { method: request.method, path: request.path, error })
  if (response.headersSent) {
    response.destroy()
    return
  }
  if (described.status === 401) response.setHeader('www-authenticate', 'Bearer')
  if (typeof described.retryAfterSeconds === 'number') {
    response.setHeader('retry-after', String(described.retryAfterSeconds))
  }
  sendProblem(response, described)
}

function sendProblem(response: Response, described: ReturnType<typeof problem>): void {
  response.setHeader('cache-control', 'no-store')
  response.status(described.status).type('application/problem+json').send(JSON.stringify(described))
}

const here = () => ({ requestId: requestId() })

const expressPath = (path: string): string => `${API_ROOT}${path.replace(/\{(\w+)\}/g, ':$1')}`

function methodsByPath(routes: readonly Route[]): Map<string, string[]> {
  const byPath = new Map<string, string[]>()
  for (const { path, method } of routes) byPath.set(path, [...(byPath.get(path) ?? []), method.toUpperCase()])
  return byPath
}
