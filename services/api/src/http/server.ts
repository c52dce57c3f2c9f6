import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Bind } from '@ares/chassis'

export interface HttpServer {
  readonly port: number
  /** Takes no new connections, gives the requests that run `drainMs` (default 10 s) to end, then cuts them. */
  stop(drainMs?: number): Promise<void>
}

/** @throws when the address cannot be bound */
export async function startHttpServer(bind: Bind, listener: RequestListener): Promise<HttpServer> {
  let stopping = false
  const server = createServer((request, response) => {
    // A kept connection would be given the next request after this one.
    if (stopping) response.setHeader('connection', 'close')
    listener(request, response)
  })
  server.requestTimeout = 30_000
  server.headersTimeout = 15_000
  server.listen(bind.port, bind.host)
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async stop(drainMs = 10_000) {
      stopping = true
      const closed = once(server, 'close')
      server.close() // also closes the idle connections
      const limit = setTimeout(() => server.closeAllConnections(), drainMs)
      await closed
      clearTimeout(limit)
    },
  }
}
