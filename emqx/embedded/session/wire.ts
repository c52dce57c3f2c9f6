import type { Duplex } from 'node:stream'

/** A subscriber that reads nothing would otherwise fill the memory with QoS 0 messages, which no window bounds. */
const MAX_UNSENT_BYTES = 8 * 1024 ** 2

/** The way to a connected subscriber. Frames of one turn of the event loop go out together, as one TLS record or few. */
export class Wire {
  private corked = false

  constructor(private readonly stream: Duplex) {}

  get congested(): boolean {
    return this.stream.writableLength > MAX_UNSENT_BYTES
  }

  write(frame: Buffer): void {
    if (this.stream.destroyed) return
    if (!this.corked) {
      this.corked = true
      this.stream.cork()
      setImmediate(() => {
        this.corked = false
        this.stream.uncork()
      })
    }
    this.stream.write(frame)
  }
}
