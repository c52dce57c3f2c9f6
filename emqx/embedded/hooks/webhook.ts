import * as http from 'node:http'
import * as https from 'node:https'
import { namedFiles, readCertificateFiles } from '../certificate-files'
import type { WebhookConf } from '../conf/broker-conf'
import type { BrokerLogger } from '../logger'

export type WebhookAnswer =
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly contentType: string | undefined
      readonly body: string
    }
  | { readonly kind: 'failure'; readonly cause: string }

const JSON_TYPE = 'application/json'
const FORM_TYPE = 'application/x-www-form-urlencoded'
/** EMQX gives up half a second after request_timeout (measured: 2 s -> 2.5 s). */
const GRACE_MS = 500
/** A connection that closes before the answer is tried again on another one: three requests in all. */
const TRIES = 3
const MAX_ANSWER_BYTES = 1024 ** 2

/**
 * One HTTP hook of EMQX: POST with the configured headers, over a keep-alive pool with one request at a time on each
 * connection, TLS both ways as configured.
 */
export class Webhook {
  private readonly url: URL
  private agent: http.Agent

  constructor(
    readonly name: string,
    private readonly conf: WebhookConf,
    private readonly logger: BrokerLogger,
  ) {
    this.url = new URL(conf.url)
    this.agent = this.newAgent()
  }

  /** The files that the connections are made with; `reload` takes up new ones. */
  get tlsFiles(): string[] {
    return this.conf.ssl.enable ? namedFiles(this.conf.ssl) : []
  }

  /** @throws Error when the files are not usable; the connections in use stay then */
  reload(): void {
    const old = this.agent
    this.agent = this.newAgent()
    // Requests under way end on their connections; free ones are closed at once.
    for (const sockets of Object.values(old.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
    setTimeout(() => old.destroy(), this.conf.request_timeout + GRACE_MS).unref()
  }

  /** Never throws: whatever goes wrong is an answer of its own. */
  async ask(body: Readonly<Record<string, string>>): Promise<WebhookAnswer> {
    const type = this.conf.headers['content-type'] ?? JSON_TYPE
    if (type !== JSON_TYPE && type !== FORM_TYPE) {
      return this.failed(`unknown content-type of the request: ${type}`)
    }
    const text = type === JSON_TYPE ? JSON.stringify(body) : new URLSearchParams(body).toString()
    const deadline = Date.now() + this.conf.request_timeout + GRACE_MS
    for (let attempt = 1; ; attempt++) {
      const answer = await this.post(text, type, deadline)
      if (answer.kind === 'answer') return answer
      if (answer.cause !== 'closed' || attempt === TRIES || Date.now() >= deadline) return this.failed(answer.cause)
    }
  }

  close(): void {
    this.agent.destroy()
  }

  private failed(cause: string): WebhookAnswer {
    this.logger.error('http_connector_do_request_failed', { hook: this.name, reason: cause })
    return { kind: 'failure', cause }
  }

  private post(text: string, contentType: string, deadline: number): Promise<WebhookAnswer> {
    return new Promise((resolve) => {
      const request = (this.url.protocol === 'https:' ? https : http).request(this.url, {
        method: 'POST',
        agent: this.agent,
        headers: {
          ...this.conf.headers,
          'content-type': contentType,
          'content-length': Buffer.byteLength(text),
        },
      })
      const timer = setTimeout(() => request.destroy(new Error('timeout')), Math.max(0, deadline - Date.now()))
      const settle = (answer: WebhookAnswer) => {
        clearTimeout(timer)
        resolve(answer)
      }
      request.on('socket', (socket) => {
        if (!socket.connecting) return
        const connecting = setTimeout(() => request.destroy(new Error('connect_timeout')), this.conf.connect_timeout)
        const connected = () => clearTimeout(connecting)
        socket.once('connect', connected).once('close', connected)
      })
      request.on('error', (error) => settle({ kind: 'failure', cause: causeOf(error) }))
      request.on('response', (response) => {
        const chunks: Buffer[] = []
        let bytes = 0
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes > MAX_ANSWER_BYTES) request.destroy(new Error('answer too large'))
          else chunks.push(chunk)
        })
        response.on('aborted', () => settle({ kind: 'failure', cause: 'closed' }))
        response.on('end', () =>
          settle({
            kind: 'answer',
            status: response.statusCode ?? 0,
            contentType: response.headers['content-type'],
            body: Buffer.concat(chunks).toString('utf8'),
          }),
        )
      })
      request.end(text)
    })
  }

  private newAgent(): http.Agent {
    const pool = { keepAlive: true, maxSockets: this.conf.pool_size, maxFreeSockets: this.conf.pool_size }
    if (this.url.protocol !== 'https:') return new http.Agent(pool)
    const { verify, server_name_indication, versions } = this.conf.ssl
    return new https.Agent({
      ...pool,
      rejectUnauthorized: verify === 'verify_peer',
      ...readCertificateFiles(this.conf.ssl),
      servername: server_name_indication ?? this.url.hostname,
      minVersion: versions.includes('tlsv1.2') ? 'TLSv1.2' : 'TLSv1.3',
    })
  }
}

function causeOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE' || error.message === 'socket hang up') return 'closed'
  if (error.code === 'ECONNREFUSED') return 'econnrefused'
  return error.code ?? error.message
}

/** The media type as EMQX compares it: case matters, parameters do not. */
export function mediaTypeOf(contentType: string | undefined): 'json' | 'form' | 'other' | undefined {
  if (contentType === undefined) return undefined
  const type = contentType.split(';')[0]?.trim()
  return type === JSON_TYPE ? 'json' : type === FORM_TYPE ? 'form' : 'other'
}
