import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

/**
 * What can happen between the broker and an authorizer.
 *
 *   open     everything passes
 *   closed   connections are refused, as by a process that was killed
 *   hung     connections are taken and nothing passes, as by a process that is stopped
 *   slow     answers pass `delayMs` late
 */
export type GateState = 'open' | 'closed' | 'hung' | 'slow'

/** A TCP gate before a port on the loopback address, whose state a test chooses. Connections end at each change. */
export class Gate {
  delayMs = 200
  private state: GateState = 'hung'
  private readonly sockets = new Set<Socket>()

  private constructor(
    private readonly server: Server,
    private target: number,
  ) {}

  /** It is hung until `turn` is called. */
  static async start(): Promise<Gate> {
    const server = createServer()
    const gate = new Gate(server, 0)
    server.on('connection', (socket) => gate.take(socket))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return gate
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  turn(state: GateState, target = this.target): void {
    this.state = state
    this.target = target
    for (const socket of this.sockets) socket.destroy()
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    this.turn('closed')
    await closed
  }

  private take(socket: Socket): void {
    this.keep(socket)
    if (this.state === 'closed') socket.resetAndDestroy()
    if (this.state === 'closed' || this.state === 'hung') return
    const behind = connect(this.target, '127.0.0.1')
    this.keep(behind)
    socket.on('close', () => behind.destroy())
    behind.on('close', () => socket.destroy())
    socket.pipe(behind)
    if (this.state === 'open') behind.pipe(socket)
    else behind.on('data', (part) => setTimeout(() => socket.writable && socket.write(part), this.delayMs))
  }

  private keep(socket: Socket): void {
    this.sockets.add(socket)
    socket.on('close', () => this.sockets.delete(socket))
    socket.on('error', () => {}) // a cut connection is what the test wants
  }
}
