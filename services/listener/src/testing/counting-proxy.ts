import { once } from 'node:events'
import * as net from 'node:net'

/** Stands between a client and a broker: counts connections and MQTT packets from the client, and can cut. */
export class CountingProxy {
  connections = 0
  private readonly sockets = new Set<net.Socket>()
  /** While false, connections are accepted and closed at once. */
  open = true

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
