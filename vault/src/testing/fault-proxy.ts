import { once } from 'node:events'
import * as net from 'node:net'

/** What a client of TLS 1.3 says before the server has finished its part of the handshake: one piece. */
const HELLO = 1

/** Stands between a client and Vault, for tests of what cannot be caused at the server: it passes bytes, late or not at all. */
export class FaultProxy {
  /** Added to every piece of an answer. */
  delayMs = 0
  /** What is asked from now on gets through, and its connection never hears an answer, also when this is false again: the
   *  rest of a TLS record is no answer. A handshake is answered, or there would be no request. */
  swallow = false
  private readonly sockets = new Set<net.Socket>()
  private isOpen = true

  private constructor(
    private readonly server: net.Server,
    private readonly targetPort: number,
  ) {}

  static async start(targetPort: number): Promise<FaultProxy> {
    const server = net.createServer()
    const proxy = new FaultProxy(server, targetPort)
    server.on('connection', (socket) => proxy.join(socket))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return proxy
  }

  get address(): string {
    return `https://127.0.0.1:${(this.server.address() as net.AddressInfo).port}`
  }

  /** Cuts every connection, and every new one at once: nobody can reach Vault. */
  close(): void {
    this.isOpen = false
    for (const socket of this.sockets) socket.destroy()
  }

  open(): void {
    this.isOpen = true
  }

  async stop(): Promise<void> {
    this.close()
    const closed = once(this.server, 'close')
    this.server.close()
    await closed
  }

  private join(socket: net.Socket): void {
    socket.on('error', () => undefined)
    if (!this.isOpen) {
      socket.destroy()
      return
    }
    const upstream = net.connect(this.targetPort, '127.0.0.1')
    upstream.on('error', () => undefined)
    this.sockets.add(socket)
    let spoken = 0
    let isDeaf = false
    socket.on('data', (data) => {
      spoken += 1
      isDeaf ||= this.swallow && spoken > HELLO
      upstream.write(data)
    })
    upstream.on('data', (data) => {
      if (isDeaf) return
      if (this.delayMs === 0) socket.write(data)
      else setTimeout(() => socket.write(data), this.delayMs)
    })
    socket.on('close', () => {
      this.sockets.delete(socket)
      upstream.destroy()
    })
    upstream.on('close', () => socket.destroy())
  }
}
