import { connect, createServer, type Server, type Socket } from 'node:net'

/**
 * A network link that can be cut: a TCP proxy on the way from one part to another.
 *
 *   THROUGH ──cut('hang')──▶ HANGING    nothing is read or written, nobody is told: a cable pulled, a firewall that drops
 *      ▲  └───cut('close')─▶ CLOSED     every connection is reset, new ones too: a process that is gone
 *      └──────heal()───────────┘        what hung goes on where it was
 *
 * Or it is narrow: `limit` holds what goes to the target to a rate, as TCP does behind a slow reader.
 */
export class Link {
  private state: 'through' | 'hang' | 'close' = 'through'
  private readonly pairs = new Set<Pair>()
  private carriedBytes = 0
  /** Bytes that may go to the target before it is the next one's turn; below zero nothing is read. */
  private allowance = 0
  private refill: NodeJS.Timeout | undefined

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

  /** Bytes that have gone to the target. */
  get carried(): number {
    return this.carriedBytes
  }

  /** @param bytesPerSecond to the target, of all connections together; undefined: as many as come */
  limit(bytesPerSecond: number | undefined): void {
    clearInterval(this.refill)
    this.refill = undefined
    this.allowance = 0
    for (const pair of this.pairs) pair.release()
    if (bytesPerSecond === undefined) return
    let filledAt = performance.now()
    this.refill = setInterval(() => {
      const now = performance.now()
      // No more than a step is saved up: a limit that is not used gives no burst.
      const earned = ((now - filledAt) / 1_000) * bytesPerSecond
      filledAt = now
      this.allowance = Math.min(this.allowance + earned, earned)
      if (this.allowance > 0) for (const pair of this.pairs) pair.release()
    }, REFILL_MS).unref()
  }

  close(): Promise<void> {
    this.limit(undefined)
    for (const pair of this.pairs) pair.destroy()
    return new Promise((resolve) => this.server.close(() => resolve()))
  }

  private admit(near: Socket): void {
    if (this.state === 'close') {
      near.resetAndDestroy()
      return
    }
    const pair = new Pair(near, this.target, {
      onCarried: (bytes) => this.count(bytes),
      onEnd: () => this.pairs.delete(pair),
    })
    this.pairs.add(pair)
    if (this.state === 'through') pair.resume()
  }

  private count(bytes: number): void {
    this.carriedBytes += bytes
    if (!this.refill) return
    this.allowance -= bytes
    if (this.allowance <= 0) for (const pair of this.pairs) pair.hold()
  }
}

const REFILL_MS = 20

/** A connection and its other half, which is opened when the link lets something through. */
class Pair {
  private far: Socket | undefined
  private paused = true
  private held = false

  constructor(
    private readonly near: Socket,
    private readonly target: () => number,
    private readonly events: { onCarried(bytes: number): void; onEnd(): void },
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
    if (!this.held) this.near.resume()
    this.far.resume()
  }

  /** Nothing more goes to the target. */
  hold(): void {
    this.held = true
    this.near.pause()
  }

  release(): void {
    this.held = false
    if (!this.paused) this.near.resume()
  }

  destroy(): void {
    this.near.destroy()
    this.far?.destroy()
    this.events.onEnd()
  }

  private open(): Socket {
    const far = connect({ port: this.target(), host: '127.0.0.1', allowHalfOpen: true })
    far.on('error', () => this.destroy())
    far.once('close', () => this.destroy())
    this.near.on('data', (chunk) => this.events.onCarried(chunk.length))
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
        if (!this.paused && !(this.held && from === this.near)) from.resume()
      })
    })
    from.on('end', () => to.end())
  }
}
