import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Broker } from '../broker'
import type { Bind } from '../conf/quantity'
import { ratePerSecond } from '../conf/quantity'
import type { MqttListener } from '../listener/mqtt-listener'
import type { ApiKeys } from './api-keys'

/** The calls of EMQX's management API (v5) that Ares uses, on the dashboard's listener. */
export class ManagementApi {
  private readonly server = http.createServer((request, response) => {
    this.answer(request).then(
      (answer) => send(response, answer),
      () => send(response, { status: 500, body: { code: 'INTERNAL_ERROR', message: 'the call failed' } }),
    )
  })

  constructor(
    private readonly broker: Broker,
    private readonly listeners: readonly MqttListener[],
    private readonly keys: ApiKeys,
  ) {}

  listen(bind: Bind): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.once('error', (error) =>
        reject(new Error(`Failed to start the dashboard listener on ${bind.host}:${bind.port}: ${error.message}`)),
      )
      this.server.listen(bind.port, bind.host, () => resolve((this.server.address() as AddressInfo).port))
    })
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve))
    this.server.closeAllConnections()
    await closed
  }

  private async answer(request: http.IncomingMessage): Promise<Answer> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://management')
    const call = `${request.method} ${pathname}`
    if (call === 'GET /api/v5/status' || call === 'GET /status') {
      return { status: 200, text: 'Node emqx@127.0.0.1 is started\nemqx is running' }
    }
    if (request.headers.authorization === undefined) return unauthorized('AUTHORIZATION_HEADER_ERROR')
    if (!this.keys.admits(request.headers.authorization)) return unauthorized('BAD_API_KEY_OR_SECRET')
    const body = await bodyOf(request)
    if (call === 'GET /api/v5/stats') return { status: 200, body: perNode(searchParams, this.stats()) }
    if (call === 'GET /api/v5/metrics') return { status: 200, body: perNode(searchParams, this.metrics()) }
    if (call === 'GET /api/v5/clients') return this.clients(searchParams)
    if (call === 'POST /api/v5/clients/kickout/bulk') return this.kickAll(body)
    const clientId = /^\/api\/v5\/clients\/([^/]+)$/.exec(pathname)?.[1]
    if (clientId !== undefined) return this.client(request.method, decodeURIComponent(clientId))
    const listenerId = /^\/api\/v5\/listeners\/([^/]+)$/.exec(pathname)?.[1]
    if (listenerId !== undefined) return this.listener(request.method, decodeURIComponent(listenerId), body)
    return { status: 404, body: { code: 'API_NOT_EXIST', message: 'Request Path Not Found' } }
  }

  private client(method: string | undefined, clientId: string): Answer {
    if (method === 'DELETE') return this.broker.kick(clientId) ? { status: 204 } : clientNotFound
    if (method !== 'GET') return methodNotAllowed
    const body = this.describe(clientId)
    return body ? { status: 200, body } : clientNotFound
  }

  private clients(query: URLSearchParams): Answer {
    const page = Math.max(1, Number(query.get('page') ?? 1))
    const limit = Math.max(1, Number(query.get('limit') ?? 100))
    const username = query.get('username')
    const like = query.get('like_clientid')
    const ids = this.broker
      .clientIds()
      .filter((id) => username === null || this.broker.client(id)?.peer?.username === username)
      .filter((id) => like === null || id.includes(like))
    const data = ids.slice((page - 1) * limit, page * limit).map((id) => this.describe(id))
    return { status: 200, body: { data, meta: { page, limit, count: ids.length, hasnext: page * limit < ids.length } } }
  }

  /** Does not say who was found: 204 for unknown ids as well (measured). */
  private kickAll(body: unknown): Answer {
    if (!Array.isArray(body) || !body.every((id) => typeof id === 'string')) return badRequest('a list of client ids')
    for (const id of body) this.broker.kick(id)
    return { status: 204 }
  }

  private describe(clientId: string): Record<string, unknown> | undefined {
    const client = this.broker.client(clientId)
    if (!client) return undefined
    const { peer, session } = client
    return {
      clientid: clientId,
      username: peer?.username,
      connected: peer !== undefined,
      ip_address: peer?.host,
      port: peer?.port,
      listener: peer?.listener,
      proto_name: 'MQTT',
      proto_ver: 4,
      keepalive: peer?.keepaliveSeconds,
      clean_start: peer?.cleanStart,
      connected_at: peer?.connectedAt.toISOString(),
      subscriptions_cnt: session.subscriptions.size,
      inflight_cnt: session.inflight,
      inflight_max: session.limits.maxInflight,
      mqueue_len: session.queued,
      mqueue_max: session.limits.maxQueue,
      mqueue_dropped: session.dropped,
    }
  }

  private listener(method: string | undefined, id: string, body: unknown): Answer {
    const listener = this.listeners.find((candidate) => candidate.id === id)
    if (!listener) return { status: 404, body: { code: 'BAD_LISTENER_ID', message: 'Listener id not found' } }
    if (method === 'PUT') {
      const given = (body as { limiter?: { messages?: { rate?: unknown } } } | undefined)?.limiter?.messages?.rate
      const rate = ratePerSecond(given)
      if (rate === undefined) return badRequest('limiter.messages.rate like "8000/s"')
      listener.messages.setRate(rate)
    } else if (method !== 'GET') return methodNotAllowed
    return { status: 200, body: describeListener(listener) }
  }

  private stats(): Record<string, number> {
    return {
      'connections.count': this.broker.connectionCount,
      'live_connections.count': this.broker.connectionCount,
      'sessions.count': this.broker.sessions.size,
      'subscriptions.count': this.broker.sessions.subscriptionCount,
      'retained.count': this.broker.sessions.retained.size,
    }
  }

  private metrics(): Record<string, number> {
    const { published, unrouted, dropped } = this.broker.sessions.counts
    return {
      'messages.publish': published,
      'messages.dropped.no_subscribers': unrouted,
      'delivery.dropped.queue_full': dropped,
    }
  }
}

interface Answer {
  readonly status: number
  readonly body?: unknown
  readonly text?: string
}

const clientNotFound: Answer = { status: 404, body: { code: 'CLIENTID_NOT_FOUND', message: 'Client ID not found' } }
const methodNotAllowed: Answer = { status: 405, body: { code: 'METHOD_NOT_ALLOWED', message: 'Method Not Allowed' } }

function badRequest(wanted: string): Answer {
  return { status: 400, body: { code: 'BAD_REQUEST', message: `expected ${wanted}` } }
}

function unauthorized(code: string): Answer {
  return { status: 401, body: { code, message: 'Check api_key/api_secret' } }
}

/** EMQX answers with a list of its nodes, or with the sum when asked to aggregate. */
function perNode(query: URLSearchParams, values: Record<string, number>): unknown {
  return query.get('aggregate') === 'true' ? values : [{ node: 'emqx@127.0.0.1', ...values }]
}

function describeListener(listener: MqttListener): Record<string, unknown> {
  const [type, name] = listener.id.split(':')
  const { bind, zone, max_connections } = listener.conf
  const rate = listener.messages.rate
  return {
    id: listener.id,
    type,
    name,
    enable: true,
    bind: `${bind.host}:${bind.port}`,
    zone,
    max_connections: Number.isFinite(max_connections) ? max_connections : 'infinity',
    limiter: { messages: { rate: Number.isFinite(rate) ? `${rate}/s` : 'infinity' } },
    running: true,
    status: { running: true, current_connections: listener.connections },
    node_status: [],
  }
}

const MAX_BODY_BYTES = 1024 ** 2

async function bodyOf(request: http.IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) return undefined
    chunks.push(chunk)
  }
  try {
    return bytes === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    return undefined
  }
}

function send(response: http.ServerResponse, { status, body, text }: Answer): void {
  if (text !== undefined) response.writeHead(status, { 'content-type': 'text/plain' }).end(text)
  else if (body === undefined) response.writeHead(status).end()
  else response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
