import { randomInt } from 'node:crypto'

/**
 * A map from short strings to short byte strings that lives outside of the JavaScript heap: a million entries cost
 * their bytes plus some 12 each, and the garbage collector never walks them.
 *
 * Records lie in chunks of 1 MiB: [key length][value length, 2 bytes][key][value], rounded up to 16 bytes. The place of a
 * record is its address divided by 16, so 32 bits reach 64 GiB. A table with open addressing finds the place of a key.
 * The place of a removed record goes to a list of its size and is used again.
 */
export class CompactMap {
  private chunks: Buffer[] = []
  private end = FIRST_PLACE * UNIT
  private readonly free = new Map<number, number[]>()
  private slots = new Uint32Array(1_024)
  private filled = 0
  private count = 0
  private readonly seed = randomInt(2 ** 31)

  get size(): number {
    return this.count
  }

  /** Bytes that are reserved. */
  get bytes(): number {
    return this.chunks.length * CHUNK + this.slots.byteLength
  }

  /** @returns a view of the stored bytes, valid until the next change; undefined when the key is not there */
  get(key: string): Buffer | undefined {
    const slot = this.find(key)
    const place = slot === -1 ? EMPTY : (this.slots[slot] ?? EMPTY)
    if (place < FIRST_PLACE) return undefined
    const { chunk, at } = this.locate(place)
    const start = at + HEADER + (chunk[at] ?? 0)
    return chunk.subarray(start, start + chunk.readUInt16LE(at + 1))
  }

  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  /** @param key up to 255 characters of Latin-1 @param value up to 65,535 bytes @throws RangeError beyond that */
  set(key: string, value: Uint8Array): void {
    if (key.length > 255 || value.length > 65_535 || NOT_LATIN_1.test(key))
      throw new RangeError('key or value too long')
    this.delete(key)
    if ((this.filled + 1) * 3 > this.slots.length * 2) this.rehash()
    const place = this.allocate(sizeOf(key.length, value.length))
    const { chunk, at } = this.locate(place)
    chunk[at] = key.length
    chunk.writeUInt16LE(value.length, at + 1)
    chunk.write(key, at + HEADER, 'latin1')
    chunk.set(value, at + HEADER + key.length)
    const mask = this.slots.length - 1
    let slot = this.hash(key) & mask
    while ((this.slots[slot] ?? EMPTY) >= FIRST_PLACE) slot = (slot + 1) & mask
    if (this.slots[slot] === EMPTY) this.filled += 1
    this.slots[slot] = place
    this.count += 1
  }

  delete(key: string): boolean {
    const slot = this.find(key)
    const place = slot === -1 ? EMPTY : (this.slots[slot] ?? EMPTY)
    if (place < FIRST_PLACE) return false
    const { chunk, at } = this.locate(place)
    const size = sizeOf(chunk[at] ?? 0, chunk.readUInt16LE(at + 1))
    const list = this.free.get(size)
    if (list) list.push(place)
    else this.free.set(size, [place])
    this.slots[slot] = REMOVED
    this.count -= 1
    return true
  }

  /** Visits every entry, in no order. The visitor may delete the entry it is shown, and change nothing else. */
  forEach(visit: (key: string, value: Buffer) => void): void {
    for (const place of this.slots) {
      if (place < FIRST_PLACE) continue
      const { chunk, at } = this.locate(place)
      const start = at + HEADER
      const end = start + (chunk[at] ?? 0)
      visit(chunk.toString('latin1', start, end), chunk.subarray(end, end + chunk.readUInt16LE(at + 1)))
    }
  }

  private find(key: string): number {
    const mask = this.slots.length - 1
    for (let slot = this.hash(key) & mask; ; slot = (slot + 1) & mask) {
      const place = this.slots[slot] ?? EMPTY
      if (place === EMPTY) return -1
      if (place !== REMOVED && this.isKey(place, key)) return slot
    }
  }

  private isKey(place: number, key: string): boolean {
    const chunk = this.chunks[Math.floor(place / PLACES)]
    const at = (place % PLACES) * UNIT
    if (chunk === undefined || chunk[at] !== key.length) return false
    for (let i = 0; i < key.length; i++) if (chunk[at + HEADER + i] !== key.charCodeAt(i)) return false
    return true
  }

  /** FNV-1a, with a start of its own in each process. */
  private hash(key: string): number {
    let hash = 0x811c9dc5 ^ this.seed
    for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
    return spread(hash)
  }

  private hashOf(place: number): number {
    const { chunk, at } = this.locate(place)
    const start = at + HEADER
    const stop = start + (chunk[at] ?? 0)
    let hash = 0x811c9dc5 ^ this.seed
    for (let i = start; i < stop; i++) hash = Math.imul(hash ^ (chunk[i] ?? 0), 0x01000193)
    return spread(hash)
  }

  /** Twice the room when it is really full, the same room when most of it are marks of removed entries. */
  private rehash(): void {
    const old = this.slots
    this.slots = new Uint32Array(this.count * 3 > old.length ? old.length * 2 : old.length)
    const mask = this.slots.length - 1
    for (const place of old) {
      if (place < FIRST_PLACE) continue
      let slot = this.hashOf(place) & mask
      while (this.slots[slot] !== EMPTY) slot = (slot + 1) & mask
      this.slots[slot] = place
    }
    this.filled = this.count
  }

  private allocate(size: number): number {
    const again = this.free.get(size)?.pop()
    if (again !== undefined) return again
    // A record does not cross the border of two chunks.
    if ((this.end % CHUNK) + size > CHUNK) this.end += CHUNK - (this.end % CHUNK)
    const place = this.end / UNIT
    this.end += size
    while (this.chunks.length * CHUNK < this.end) this.chunks.push(Buffer.alloc(CHUNK))
    return place
  }

  private locate(place: number): { chunk: Buffer; at: number } {
    const chunk = this.chunks[Math.floor(place / PLACES)]
    if (!chunk) throw new Error(`no record at place ${place}`)
    return { chunk, at: (place % PLACES) * UNIT }
  }
}

const CHUNK = 1_048_576
const UNIT = 16
const PLACES = CHUNK / UNIT
const HEADER = 3

/** Slots of the table; what is greater is the place of a record. */
const EMPTY = 0
const REMOVED = 1
const FIRST_PLACE = 2

// biome-ignore lint/suspicious/noControlCharactersInRegex: the range is meant
const NOT_LATIN_1 = /[^\u0000-\u00ff]/

const sizeOf = (key: number, value: number): number => Math.ceil((HEADER + key + value) / UNIT) * UNIT

/** FNV's low bits alone are uneven. */
const spread = (hash: number): number => (hash ^ (hash >>> 15)) >>> 0
