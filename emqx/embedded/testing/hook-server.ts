import type * as http from 'node:http'
import * as https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { TestAuthority } from '@ares/chassis/testing'

export interface HookRequest {
  readonly path: string
  readonly body: Record<string, string>
  readonly headers: Record<string, string | string[] | undefined>
  /** CN of the certificate that the broker showed */
  readonly callerName: string | undefined
  readonly at: number
}

export interface HookAnswer {
  readonly status?: number
  readonly contentType?: string | undefined
  /** An object is sent as JSON, a text as it is. */
  readonly body?: unknown
  readonly delayMs?: number
  /** `close`: the connection is closed before an answer; `hang`: there is none. */
  readonly fault?: 'close' | 'hang'
}

type Script = HookAnswer | ((request: HookRequest) => HookAnswer)

/** An authorizer whose answers a test writes: HTTPS, client certificate demanded. */
export class HookServer {
  readonly requests: HookRequest[] = []
  readonly connections = new Set<TLSSocket>()
  authn: Script = { body: { result: 'allow' } }
  authz: Script = { body: { result: 'allow' } }
  openedConnections = 0

  private constructor(private readonly server: https.Server) {}

  static async start(authority: TestAuthority, port = 0): Promise<HookServer> {
    const { chainPem, keyPem } = await authority.leaf('authorizer', { client: false })
    const server = https.createServer({
      cert: chainPem,
      key: keyPem,
      ca: authority.caPem,
      requestCert: true,
      rejectUnauthorized: true,
    })
    const hooks = new HookServer(server)
    server.on('request', (request, response) => hooks.serve(request, response))
    server.on('secureConnection', (socket: TLSSocket) => {
      hooks.openedConnections++
      hooks.connections.add(socket)
      socket.once('close', () => hooks.connections.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
    return hooks
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  requestsTo(path: string): HookRequest[] {
    return this.requests.filter((request) => request.path === path)
  }

  reset(): void {
    this.requests.length = 0
    this.authn = { body: { result: 'allow' } }
    this.authz = { body: { result: 'allow' } }
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve))
    this.server.closeAllConnections()
    await closed
  }

  private serve(incoming: http.IncomingMessage, response: http.ServerResponse): void {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => {
      const request: HookRequest = {
        path: incoming.url ?? '',
        body: JSON.parse(Buffer.concat(chunks).toString('utf8')) as Record<string, string>,
        headers: incoming.headers,
        callerName: (incoming.socket as TLSSocket).getPeerCertificate().subject?.CN as string | undefined,
        at: Date.now(),
      }
      this.requests.push(request)
      const script = request.path.endsWith('/authn') ? this.authn : this.authz
      const answer = typeof script === 'function' ? script(request) : script
      if (answer.fault === 'hang') return
      if (answer.fault === 'close') {
        incoming.socket.destroy()
        return
      }
      setTimeout(() => reply(response, answer), answer.delayMs ?? 0)
    })
  }
}

function reply(response: http.ServerResponse, answer: HookAnswer): void {
  const contentType = 'contentType' in answer ? answer.contentType : 'application/json'
  response.writeHead(answer.status ?? 200, contentType === undefined ? {} : { 'content-type': contentType })
  const { body } = answer
  response.end(body === undefined || typeof body === 'string' ? (body ?? '') : JSON.stringify(body))
}
