import { createWriteStream, existsSync, renameSync, statSync, type WriteStream } from 'node:fs'
import { Writable } from 'node:stream'

const LIMIT_BYTES = 8 * 1024 * 1024
const TAIL_LINES = 200

/** What a part of the stack prints: in a file of bounded size (the one before is kept as `.1`), its last lines at hand. */
export class PartLog {
  private stream: WriteStream
  private bytes: number
  private readonly lines: string[] = []
  private rest = ''

  constructor(readonly file: string) {
    this.bytes = existsSync(file) ? statSync(file).size : 0
    this.stream = this.open()
  }

  readonly write = (chunk: Buffer | string): void => {
    if (this.stream.writableEnded) return // a late word after the end of the stack
    const text = chunk.toString()
    this.stream.write(text)
    this.bytes += Buffer.byteLength(text)
    this.remember(text)
    if (this.bytes > LIMIT_BYTES) this.turnOver()
  }

  /** The last lines that were printed. */
  tail(count = 10): string[] {
    return [...this.lines, ...(this.rest ? [this.rest] : [])].slice(-count)
  }

  /** For a logger of our own process. */
  asStream(): Writable {
    return new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.write(chunk)
        done()
      },
    })
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.stream.end(() => resolve()))
  }

  private remember(text: string): void {
    const lines = (this.rest + text).split('\n')
    this.rest = (lines.pop() ?? '').slice(-10_000)
    this.lines.push(...lines)
    if (this.lines.length > TAIL_LINES) this.lines.splice(0, this.lines.length - TAIL_LINES)
  }

  private turnOver(): void {
    this.stream.end()
    renameSync(this.file, `${this.file}.1`)
    this.bytes = 0
    this.stream = this.open()
  }

  private open(): WriteStream {
    return createWriteStream(this.file, { flags: 'a', mode: 0o600 })
  }
}
