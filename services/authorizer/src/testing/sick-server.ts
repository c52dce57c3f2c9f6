import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Leaf } from '@ares/chassis'

export interface SickAnswer {
  readonly status: number
  readonly type?: string
  readonly body: string
}

/** A server under the authorizer's name that answers every question wrongly. */
export async function startSickServer(leaf: Leaf): Promise<{
  readonly port: number
  answer: SickAnswer
  stop(): Promise<void>
}> {
  const server = createServer({ cert: leaf.chainPem, key: leaf.keyPem, ca: leaf.caPem })
  const sick = {
    answer: { status: 500, body: '' } as SickAnswer,
    get port(): number {
      return (server.address() as AddressInfo).port
    },
    async stop() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
  server.on('request', (request, response) => {
    request.resume().on('end', () => {
      const { status, type = 'application/json', body } = sick.answer
      response.writeHead(status, { 'content-type': type }).end(body)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return sick
}
