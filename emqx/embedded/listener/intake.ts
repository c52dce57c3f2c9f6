import type { Duplex } from 'node:stream'
import type { PacketCounter } from './packet-counter'
import type { TokenBucket } from './token-bucket'

/** What a connection's input is paid from, in this order. */
export interface IntakeBuckets {
  /** every MQTT packet of this client, PUBACKs too */
  readonly clientMessages: TokenBucket
  readonly clientBytes: TokenBucket
  /** one for the whole listener */
  readonly listenerMessages: TokenBucket
}

/**
 * Slows a connection by not reading it: what was read in one go is handed on when there are tokens for all of it, and
 * until then nothing more is read, so that TCP holds the client back. Nothing is dropped; keepalive is not served
 * meanwhile. EMQX does the same (measured).
 *
 * aedes takes its input with `read()` at each `readable`; `read` is where this steps in.
 */
export function paceIntake(stream: Duplex, counter: PacketCounter, buckets: IntakeBuckets): void {
  const read = stream.read.bind(stream)
  let held: Buffer | undefined
  let paid: Buffer | undefined
  let bucketInLine: TokenBucket | undefined
  let release: (() => void) | undefined

  stream.read = (size?: number) => {
    if (paid) {
      const chunk = paid
      paid = undefined
      return chunk
    }
    if (held) return null
    const chunk: Buffer | null = read(size)
    if (chunk === null) return null
    const packets = counter.count(chunk)
    if (packets === undefined) {
      stream.destroy(new Error('packet too large'))
      return null
    }
    return pay(chunk, packets) ? chunk : null
  }
  stream.once('close', () => {
    if (release) bucketInLine?.forget(release)
    held = undefined
  })

  function pay(chunk: Buffer, packets: number): boolean {
    const charges: ReadonlyArray<readonly [TokenBucket, number]> = [
      [buckets.clientMessages, packets],
      [buckets.clientBytes, chunk.length],
      [buckets.listenerMessages, packets],
    ]
    return payFrom(0)

    function payFrom(first: number): boolean {
      for (let i = first; i < charges.length; i++) {
        const [bucket, amount] = charges[i] ?? []
        if (!bucket || !amount) continue
        const next = i + 1
        release = () => {
          if (payFrom(next)) handOn(chunk)
        }
        if (bucket.take(amount, release)) continue
        bucketInLine = bucket
        held = chunk
        return false
      }
      release = undefined
      return true
    }
  }

  function handOn(chunk: Buffer): void {
    held = undefined
    if (stream.destroyed) return
    paid = chunk
    stream.emit('readable')
  }
}
