import type { OnReadOpts } from 'node:net'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'

/** A webhook server that is asked. */
export interface WebhookTarget {
  readonly name: string
  readonly port: number
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string; readonly servername: string }
  /** Processor time that the server has used so far, microseconds. */
  cpu(): Promise<number>
}

export interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Processor time of the server for one answer, microseconds. */
  readonly cpu: number
  /** Processor time of the generator for one answer, microseconds. */
  readonly generatorCpu: number
}

/** Asks again on each connection as soon as it has its answer. @param requests whole HTTP requests, taken in turn */
export async function loadFully(
  target: WebhookTarget,
  requests: readonly Buffer[],
  o: { readonly connections: number; readonly seconds: number },
): Promise<Measured> {
  const asker = await Asker.open(target, requests, o.connections)
  return asker.measure(async () => {
    const endMs = performance.now() + o.seconds * 1_000
    // Never asleep: to wake another process costs a server as much as an answer, and the slower one would do it more often.
    let running = true
    const turn = () => {
      if (running) setImmediate(turn)
    }
    turn()
    await asker.everyConnection((connection, resolve) => {
      const again = () => {
        const nowMs = performance.now()
        if (nowMs >= endMs) resolve()
        else asker.ask(connection, nowMs, again)
      }
      again()
    })
    running = false
  })
}

/**
 * Asks so many times a second, evenly to a millisecond. A question that finds no connection free waits for one, and its
 * time counts from when it was due: otherwise a server that is slow would be asked less, and look quick.
 */
export async function loadAtPace(
  target: WebhookTarget,
  requests: readonly Buffer[],
  o: { readonly connections: number; readonly seconds: number; readonly pace: number },
): Promise<Measured> {
  const asker = await Asker.open(target, requests, o.connections)
  return asker.measure(
    () =>
      new Promise((resolve, reject) => {
        asker.onBroken = reject
        const idle = [...asker.connections]
        const waiting: number[] = []
        const total = Math.round(o.pace * o.seconds)
        const startedMs = performance.now()
        let due = 0
        let answered = 0
        const ask = (connection: Connection, sinceMs: number) =>
          asker.ask(connection, sinceMs, () => {
            answered += 1
            if (answered === total) resolve()
            const next = waiting.shift()
            if (next === undefined) idle.push(connection)
            else ask(connection, next)
          })
        // What is due comes in bunches of a millisecond. To wait without sleeping would make them even, but leave a machine
        // of two cores nothing for the server's collector of garbage, nor for anything else.
        const tick = () => {
          const nowMs = performance.now()
          for (; due < total && startedMs + (due * 1_000) / o.pace <= nowMs; due++) {
            const connection = idle.shift()
            if (connection) ask(connection, nowMs)
            else waiting.push(startedMs + (due * 1_000) / o.pace)
          }
          if (due < total) setTimeout(tick, 1)
        }
        tick()
      }),
  )
}

interface Connection {
  readonly socket: TLSSocket
  sinceMs: number
  /** Of the answer that is coming: its beginning, the bytes so far, and all of them once that is known. */
  start: string
  came: number
  whole: number | undefined
  done: () => void
}

/** Connections with one question on each. It costs as little as it can, so that the server is what is measured. */
class Asker {
  private readonly latencies: number[] = []
  private asked = 0
  readonly connections: Connection[] = []
  onBroken: (error: Error) => void = () => {}

  private constructor(
    private readonly target: WebhookTarget,
    private readonly requests: readonly Buffer[],
  ) {}

  static async open(target: WebhookTarget, requests: readonly Buffer[], count: number): Promise<Asker> {
    const asker = new Asker(target, requests)
    // A few at a time: hundreds of handshakes at once can take a busy machine longer than the server waits for one.
    for (let i = 0; i < count; i += HANDSHAKES) {
      await Promise.all(Array.from({ length: Math.min(HANDSHAKES, count - i) }, () => asker.connect()))
    }
    return asker
  }

  async measure(run: () => Promise<void>): Promise<Measured> {
    const { target, latencies } = this
    const cpuBefore = await target.cpu()
    const generatorBefore = ownCpu()
    const startedMs = performance.now()
    await run()
    const tookSeconds = (performance.now() - startedMs) / 1_000
    const generatorCpu = (ownCpu() - generatorBefore) / latencies.length
    const cpu = ((await target.cpu()) - cpuBefore) / latencies.length
    this.onBroken = () => {}
    for (const { socket } of this.connections) socket.destroy()
    latencies.sort((a, b) => a - b)
    const at = (share: number) => latencies[Math.floor(latencies.length * share)] ?? Number.NaN
    return {
      perSecond: latencies.length / tookSeconds,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      cpu,
      generatorCpu,
    }
  }

  /** Until each connection has come to its end, or one has broken. */
  everyConnection(run: (connection: Connection, resolve: () => void) => void): Promise<unknown> {
    return Promise.race([
      new Promise<never>((_, reject) => {
        this.onBroken = reject
      }),
      Promise.all(this.connections.map((each) => new Promise<void>((resolve) => run(each, resolve)))),
    ])
  }

  /** @param sinceMs from when the time of the answer counts */
  ask(connection: Connection, sinceMs: number, done: () => void): void {
    connection.sinceMs = sinceMs
    connection.done = done
    connection.socket.write(this.requests[this.asked++ % this.requests.length] ?? '')
  }

  private connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const options: ConnectionOptions & { readonly onread: OnReadOpts } = {
        host: '127.0.0.1',
        port: this.target.port,
        ...this.target.tls,
        onread: {
          buffer: Buffer.allocUnsafe(16_384),
          callback: (bytes, buffer) => {
            this.receive(connection, Buffer.from(buffer.buffer, buffer.byteOffset, bytes))
            return true
          },
        },
      }
      const socket = connect(options)
      const connection: Connection = { socket, sinceMs: 0, start: '', came: 0, whole: undefined, done: () => {} }
      socket.setNoDelay(true)
      socket.once('secureConnect', () => {
        this.connections.push(connection)
        resolve()
      })
      const broken = (cause: string) => {
        const error = new Error(`${this.target.name}: ${cause}`)
        reject(error)
        this.onBroken(error)
      }
      socket.on('error', (error) => broken(error.message))
      socket.on('close', () => broken('a connection was closed'))
    })
  }

  private receive(connection: Connection, part: Buffer): void {
    connection.came += part.length
    if (connection.start.length < START) connection.start += part.toString('latin1', 0, START)
    if (connection.whole === undefined) {
      const headEnd = connection.start.indexOf('\r\n\r\n')
      if (headEnd === -1) return
      connection.whole = headEnd + 4 + Number(/content-length: (\d+)/i.exec(connection.start)?.[1])
    }
    if (connection.came < connection.whole) return
    const nowMs = performance.now()
    if (!connection.start.includes('"result":"allow"')) {
      this.onBroken(new Error(`${this.target.name} answered ${connection.start}`))
      return
    }
    connection.start = ''
    connection.came = 0
    connection.whole = undefined
    this.latencies.push(nowMs - connection.sinceMs)
    connection.done()
  }
}

/** Characters of an answer that are looked at: its head, and the result, which comes first in the body. */
const START = 400

const HANDSHAKES = 16

function ownCpu(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}
