import { connect, createServer, type Server, type Socket } from 'node:net'

/**
 * A network link that can be cut: a TCP proxy on the way from one part to another.
 *
 *   THROUGH ──cut('hang')──▶ HANGING    nothing is read or written, nobody is told: a cable pulled, a firewall that drops
 *      ▲  └───cut('close')─▶ CLOSED     every connection is reset, new ones too: a process that is gone
 *      └──────heal()───────────┘        what hung goes on where it was
 */
export class Link {
  private state: 'through' | 'hang' | 'close' = 'through'
  private readonly pairs = new Set<Pair>()

  private constructor(
    private readonly server: Server,
    private readonly target: () => number,
  ) {
    server.on('connection', (socket) => this.admit(socket))
  }

  /** @param target the port that it leads to, asked for at each connection */
  static async open(target: () => number): Promise<Link> {
    const server = createServer({ allowHalfOpen: true })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    return new Link(server, target)
  }

  get port(): number {
    const address = this.server.address()
    if (address === null || typeof address === 'string') throw new Error('the link is closed')
    return address.port
  }

  cut(how: 'hang' | 'close'): void {
    this.state = how
    for (const pair of this.pairs) {
      if (how === 'hang') pair.pause()
      else pair.destroy()
    }
  }

  heal(): void {
    this.state = 'through'
    for (const pair of this.pairs) pair.resume()
  }

  close(): Promise<void> {
    for (const pair of this.pairs) pair.destroy()
    return new Promise((resolve) => this.server.close(() => resolve()))
  }

  private admit(near: Socket): void {
    if (this.state === 'close') {
      near.resetAndDestroy()
      return
    }
    const pair = new Pair(near, this.target, () => this.pairs.delete(pair))
    this.pairs.add(pair)
    if (this.state === 'through') pair.resume()
  }
}

/** A connection and its other half, which is opened when the link lets something through. */
class Pair {
  private far: Socket | undefined
  private paused = true

  constructor(
    private readonly near: Socket,
    private readonly target: () => number,
    private readonly onEnd: () => void,
  ) {
    near.pause()
    near.on('error', () => this.destroy())
    near.once('close', () => this.destroy())
  }

  pause(): void {
    this.paused = true
    this.near.pause()
    this.far?.pause()
  }

  resume(): void {
    this.paused = false
    if (!this.far) this.far = this.open()
    this.near.resume()
    this.far.resume()
  }

  destroy(): void {
    this.near.destroy()
    this.far?.destroy()
    this.onEnd()
  }

  private open(): Socket {
    const far = connect({ port: this.target(), host: '127.0.0.1', allowHalfOpen: true })
    far.on('error', () => this.destroy())
    far.once('close', () => this.destroy())
    this.carry(this.near, far)
    this.carry(far, this.near)
    return far
  }

  private carry(from: Socket, to: Socket): void {
    to.setNoDelay(true)
    from.on('data', (chunk) => {
      if (to.write(chunk)) return
      from.pause()
      to.once('drain', () => {
        if (!this.paused) from.resume()
      })
    })
    from.on('end', () => to.end())
  }
}
