import { once } from 'node:events'
import * as net from 'node:net'

/** Stands between a client and a server: counts connections, and can cut or hang. */
export class CountingProxy {
  connections = 0
  private readonly sockets = new Set<net.Socket>()
  /** While false, connections are accepted and closed at once. */
  open = true
  private hanging = false

  private constructor(
    private readonly server: net.Server,
    readonly port: number,
  ) {}

  static async start(target: number): Promise<CountingProxy> {
    const server = net.createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const proxy = new CountingProxy(server, (server.address() as net.AddressInfo).port)
    server.on('connection', (socket) => proxy.join(socket, target))
    return proxy
  }

  /** Cuts every connection without a goodbye. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy()
  }

  /** Takes nothing and says nothing from now on, like a cable that was pulled; `cut` and `heal` end it. */
  hang(): void {
    this.hanging = true
    for (const socket of this.sockets) socket.unpipe().pause()
  }

  /** Lets new connections through again. Those that hung stay dead: they are closed. */
  heal(): void {
    this.hanging = false
    this.cut()
  }

  async stop(): Promise<void> {
    this.cut()
    const closed = once(this.server, 'close')
    this.server.close()
    await closed
  }

  private join(socket: net.Socket, target: number): void {
    this.connections++
    socket.on('error', () => undefined)
    if (!this.open) {
      socket.destroy()
      return
    }
    if (this.hanging) {
      this.sockets.add(socket.pause())
      return
    }
    const upstream = net.connect(target, '127.0.0.1')
    for (const [from, to] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      this.sockets.add(from)
      from.setNoDelay(true)
      from.on('error', () => undefined)
      from.on('close', () => {
        this.sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  }
}
