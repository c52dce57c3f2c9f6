import { once } from 'node:events'
import { Agent, createServer, request, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Leaf } from '@ares/chassis'

export interface Asked {
  readonly path: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Readonly<Record<string, unknown>>
  /** What the authorizer answered. */
  readonly answer: { readonly result: string; readonly acl?: readonly object[] } & Readonly<Record<string, unknown>>
}

/**
 * Stands between the broker and the authorizer, under the certificates of both, and writes down what the one asks and the
 * other answers. It changes neither.
 */
export class Recorder {
  readonly asked: Asked[] = []

  private constructor(
    private readonly server: Server,
    private readonly agent: Agent,
  ) {}

  /** @param port of the authorizer */
  static async start(authorizer: Leaf, broker: Leaf, port: number): Promise<Recorder> {
    const agent = new Agent({
      keepAlive: true,
      ca: broker.caPem,
      cert: broker.chainPem,
      key: broker.keyPem,
      servername: authorizer.commonName,
    })
    const { chainPem, keyPem, caPem } = authorizer
    const server = createServer({ cert: chainPem, key: keyPem, ca: caPem, requestCert: true })
    const recorder = new Recorder(server, agent)
    server.on('request', async (incoming, response) => {
      const body = await textOf(incoming)
      const { url = '', headers, method } = incoming
      const onward = request({ host: '127.0.0.1', port, path: url, method, headers, agent }, async (answer) => {
        const text = await textOf(answer)
        recorder.asked.push({ path: url, headers, body: JSON.parse(body), answer: JSON.parse(text) })
        response.writeHead(answer.statusCode ?? 500, { 'content-type': answer.headers['content-type'] }).end(text)
      })
      onward.on('error', () => response.destroy())
      onward.end(body)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return recorder
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  /** What was asked at one of the hooks since the last call. */
  take(path: '/mqtt/authn' | '/mqtt/authz'): Asked[] {
    const taken = this.asked.filter((each) => each.path === path)
    this.asked.length = 0
    return taken
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    this.server.closeAllConnections()
    await closed
    this.agent.destroy()
  }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts).toString()
}
