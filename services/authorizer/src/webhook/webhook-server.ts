import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Bind, Leaf, LeafSource, Logger } from '@ares/chassis'

/** The client certificate that EMQX presents; nobody else has a question to ask. */
const BROKER = 'broker.ares4.internal'

/** A connect body is 2 KB; MQTT allows a password of 65,535 bytes, which no access token has. */
const MOST_BODY_BYTES = 64 * 1_024

/**
 * EMQX has 32 connections for each of two hooks. As a connection has one body under way and a bounded number of answers
 * waiting, this bounds the memory too: 512 x (64 KB + 256 KB) = 160 MB, whatever is sent.
 */
const MOST_CONNECTIONS = 512

/** A request must be complete in this time. EMQX gives up after 3 s and takes it for "ignore", which is a denial. */
const REQUEST_MS = 5_000

/**
 * Answers that may wait on a connection before Node pauses it. It must be more than a burst of pipelined requests can make
 * (EMQX: up to 100, of 1.5 KB), because over TLS a paused connection breaks: what was received with the last record still
 * goes to the HTTP parser, which is paused and says HPE_PAUSED. Node's default is 16 KB.
 */
const MOST_WAITING_BYTES = 262_144

/** EMQX keeps its pooled connections for good, and a server that closes them first makes it try again in the middle of a
 *  storm. So none is too old; whose peer is gone is found out by TCP, asked after this time of silence. */
const ASK_PEER_AFTER_MS = 60_000

export const DENY = '{"result":"deny"}'
const JSON_TYPE = 'application/json'

export interface WebhookServerOptions {
  readonly identity: LeafSource
  readonly bind: Bind
  readonly logger: Logger
  /** Path -> who answers. An answer is the JSON text for a body, in ASCII; it is sent with status 200, because EMQX takes
   *  every other status for "ignore". What it throws is answered with a denial. */
  readonly hooks: Readonly<Record<string, (body: Buffer) => string>>
  /** How long a handshake, and then a request, may take to come in; default 5 s. */
  readonly requestMs?: number
  /** What comes beyond is closed at once; default 512. */
  readonly connections?: number
  /** Told of all that came to no answer of a hook, by its cause. */
  readonly onRefused: (cause: string) => void
}

/**
 * EMQX's webhooks: HTTPS with a client certificate, on node:https alone (Express answers a fifth as many).
 *
 * A question is answered with 200 and JSON, or refused with 4xx before its body is read: wrong path, method, type, size.
 * Both close the door: emqx.conf has no_match = deny.
 */
export class WebhookServer {
  private readonly brokers = new WeakSet<Socket>()
  private endRotation: () => void = () => {}

  private constructor(
    private readonly server: Server,
    private readonly options: WebhookServerOptions,
  ) {}

  static async start(options: WebhookServerOptions): Promise<WebhookServer> {
    const requestMs = options.requestMs ?? REQUEST_MS
    const server = createServer({
      ...tlsOf(options.identity.current()),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: requestMs,
      headersTimeout: requestMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: Math.min(requestMs, 1_000),
      keepAliveTimeout: 0,
      keepAlive: true,
      keepAliveInitialDelay: ASK_PEER_AFTER_MS,
      maxHeaderSize: 8_192,
    })
    server.maxConnections = options.connections ?? MOST_CONNECTIONS
    const webhooks = new WebhookServer(server, options)
    server.on('secureConnection', (socket) => webhooks.greet(socket))
    server.on('request', (request, response) => webhooks.take(request, response))
    server.on('tlsClientError', (error) => options.onRefused(`tls_${causeOf(error)}`))
    server.on('clientError', (error, socket) => webhooks.clientError(error, socket as Socket))
    server.on('drop', () => options.onRefused('too_many_connections'))
    server.on('error', (error) => options.logger.error('the webhook server has a problem', { error }))
    webhooks.endRotation = options.identity.onRenewed((leaf) => server.setSecureContext(tlsOf(leaf)))
    server.listen(options.bind.port, options.bind.host)
    await once(server, 'listening')
    return webhooks
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  /** Takes no new connections, answers what has come in, and cuts the rest after `drainMs`. */
  async stop(drainMs = 1_000): Promise<void> {
    this.endRotation()
    const closed = once(this.server, 'close')
    this.server.close()
    this.server.closeIdleConnections()
    const cut = setTimeout(() => this.server.closeAllConnections(), drainMs)
    await closed
    clearTimeout(cut)
  }

  private greet(socket: TLSSocket): void {
    if (socket.getPeerCertificate().subject?.CN === BROKER) {
      this.brokers.add(socket)
      letAnswersWait(socket)
      return
    }
    this.options.onRefused('not_the_broker')
    socket.destroy()
  }

  private take(request: IncomingMessage, response: ServerResponse): void {
    if (!this.brokers.has(request.socket)) {
      request.socket.destroy()
      return
    }
    const { hooks } = this.options
    const hook = Object.hasOwn(hooks, request.url ?? '') ? hooks[request.url ?? ''] : undefined
    if (!hook) this.refuse(response, 404, 'unknown_path')
    else if (request.method !== 'POST') this.refuse(response, 405, 'wrong_method')
    else if (!isJson(request.headers['content-type'])) this.refuse(response, 415, 'wrong_content_type')
    else if (Number(request.headers['content-length'] ?? 0) > MOST_BODY_BYTES) this.refuse(response, 413, 'too_large')
    else this.collect(request, response, hook)
  }

  private collect(request: IncomingMessage, response: ServerResponse, hook: (body: Buffer) => string): void {
    const parts: Buffer[] = []
    let bytes = 0
    request.on('data', (part: Buffer) => {
      bytes += part.length
      if (bytes <= MOST_BODY_BYTES) parts.push(part)
      else if (!response.headersSent) this.refuse(response, 413, 'too_large')
    })
    request.on('end', () => {
      if (!response.headersSent) answer(response, this.ask(hook, parts.length === 1 ? parts[0] : Buffer.concat(parts)))
    })
    request.on('error', () => this.options.onRefused('broken_off'))
  }

  private ask(hook: (body: Buffer) => string, body: Buffer = Buffer.alloc(0)): string {
    try {
      return hook(body)
    } catch (error) {
      this.options.logger.error('a decision failed; it is a denial', { error })
      this.options.onRefused('internal_error')
      return DENY
    }
  }

  private refuse(response: ServerResponse, status: number, cause: string): void {
    this.options.onRefused(cause)
    response.writeHead(status, { 'content-length': 0, connection: 'close' })
    response.end()
  }

  /** What was not HTTP, or took too long. */
  private clientError(error: Error, socket: Socket): void {
    // node:https tells of a handshake that failed here too, after tlsClientError. An answer would wait for the end of the
    // handshake: one that is late would get a 400 for its first request, one that never comes would keep the connection.
    if (!this.brokers.has(socket)) {
      socket.destroy()
      return
    }
    const cause = causeOf(error)
    // EMQX opens its pool at boot and may need a connection only much later; Node takes that for a slow request.
    if (cause === 'ERR_HTTP_REQUEST_TIMEOUT' && socket.bytesRead === 0) return
    this.options.onRefused(`http_${cause}`)
    if (!socket.writable || cause === 'ECONNRESET') {
      socket.destroy()
      return
    }
    socket.end(`HTTP/1.1 ${STATUS_OF[cause] ?? '400 Bad Request'}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`)
    socket.destroySoon()
  }
}

/** tls.Server has no option for it. A listener for `data` would do as well, but it takes Node's shortcut from TLS to the HTTP
 *  parser away: 3 µs more for a request, of 23. A test pipelines, and fails when Node does not heed this any more. */
function letAnswersWait(socket: TLSSocket & { readonly _writableState?: { highWaterMark: number } }): void {
  if (socket._writableState) socket._writableState.highWaterMark = MOST_WAITING_BYTES
}

/** As Latin-1, whose bytes are copied and not encoded: of ASCII they are the same. */
function answer(response: ServerResponse, json: string): void {
  response.writeHead(200, { 'content-type': JSON_TYPE, 'content-length': json.length })
  response.end(json, 'latin1')
}

const isJson = (type: string | undefined): boolean => type === JSON_TYPE || type?.startsWith(`${JSON_TYPE};`) === true

const STATUS_OF: Readonly<Record<string, string>> = {
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
}

/** Error codes come from a closed set, so they may be labels of a metric. */
const causeOf = (error: Error & { code?: string }): string => error.code ?? 'other'

const tlsOf = (leaf: Leaf) => ({
  cert: leaf.chainPem,
  key: leaf.keyPem,
  ca: leaf.caPem,
  minVersion: 'TLSv1.2' as const,
})
