/** Counts the MQTT packets that begin in a stream of bytes, without parsing them, and says when one is too large. */
export class PacketCounter {
  private bodyLeft = 0
  /** Inside the remaining-length field: its value so far and the factor of the next digit. */
  private length = 0
  private factor = 0

  /** @param maxPacketBytes a packet whose remaining length is more is too large */
  constructor(private readonly maxPacketBytes: number) {}

  /** The packets that begin in this chunk; undefined when one of them is too large or malformed. */
  count(chunk: Buffer): number | undefined {
    let packets = 0
    let at = 0
    while (at < chunk.length) {
      if (this.bodyLeft > 0) {
        const skipped = Math.min(this.bodyLeft, chunk.length - at)
        this.bodyLeft -= skipped
        at += skipped
        continue
      }
      if (this.factor === 0) {
        packets++
        this.factor = 1
        this.length = 0
        at++
        continue
      }
      const digit = chunk[at++] ?? 0
      this.length += (digit & 0x7f) * this.factor
      this.factor *= 128
      if ((digit & 0x80) !== 0) {
        if (this.factor > 128 ** 3) return undefined
        continue
      }
      if (this.length > this.maxPacketBytes) return undefined
      this.bodyLeft = this.length
      this.factor = 0
    }
    return packets
  }
}
