import type { Checksum, Heartbeat, WatchDirectoryResponse } from '@ares/proto/directory/v1/directory'
import { type Directory, DirectoryTables } from './directory'

/** The stream broke its own rules; it must be opened again. */
export class StreamBroken extends Error {
  override readonly name = 'StreamBroken'
}

/** What a decision was made from. */
export interface Knowledge {
  readonly directory: Directory
  /** The directory's version. */
  readonly version: bigint
  /** Since api last said that this is all there is. */
  readonly ageMs: number
}

/** api's checksum of a version, and the one that this replica had then. */
export interface Comparison {
  readonly equal: boolean
  readonly api: Checksum
  readonly replica: Checksum
}

/**
 * DirectoryReplica: the directory as api last told it.
 *
 *   EMPTY ──begin──▶ LOADING ──end, count agrees──▶ CURRENT ──change (version + 1)──▶ CURRENT
 *                       ▲                              │
 *                       └────────────begin─────────────┘   (the old tables answer until the new ones are complete)
 *
 * A heartbeat may say that api begins to compute the checksum of this very version: then what has ended is forgotten and
 * the own checksum noted, and a later heartbeat brings api's, to be compared with it. Changes go on in between.
 *
 * Everything else is StreamBroken: a gap, a chunk outside of a snapshot, another count than announced. The stream may end
 * anywhere; a half-loaded snapshot is thrown away by `streamEnded` and the tables stay what they were.
 */
export class DirectoryReplica {
  private tables: DirectoryTables | undefined
  private loading: { tables: DirectoryTables; epoch: string; version: bigint; entries: bigint } | undefined
  private held = { epoch: '', version: 0n }
  private heardAtMs = 0
  private leftOut = 0
  private noted: Checksum | undefined

  /** @param clock milliseconds that never jump back */
  constructor(private readonly clock: () => number = () => performance.now()) {}

  /** What to ask the stream for. */
  get position(): { readonly epoch: string; readonly version: bigint } {
    return this.held
  }

  /** What decisions are made from; undefined without a first snapshot: then everybody is denied. */
  knowledge(): Knowledge | undefined {
    if (!this.tables) return undefined
    return { directory: this.tables, version: this.held.version, ageMs: this.clock() - this.heardAtMs }
  }

  sizes(): ReturnType<DirectoryTables['sizes']> & { readonly leftOut: number } {
    return { ...(this.tables ?? NOTHING).sizes(), leftOut: this.leftOut }
  }

  /** Takes one event of the stream.
   *  @returns what came of a comparison of checksums, when the event brought one
   *  @throws StreamBroken when it cannot be what comes next */
  receive({ event }: WatchDirectoryResponse): Comparison | undefined {
    switch (event?.$case) {
      case 'snapshotBegin':
        this.loading = { tables: new DirectoryTables(), ...event.value, entries: 0n }
        return undefined
      case 'snapshotChunk': {
        const loading = this.mustBeLoading('a chunk')
        for (const entry of event.value.entries) this.count(loading.tables.apply(entry))
        loading.entries += BigInt(event.value.entries.length)
        return undefined
      }
      case 'snapshotEnd':
        this.swap(event.value.version, event.value.entries)
        return undefined
      case 'change': {
        const tables = this.mustBeCurrent('a change')
        if (event.value.version !== this.held.version + 1n) {
          throw new StreamBroken(`change ${event.value.version} came after version ${this.held.version}`)
        }
        for (const entry of event.value.entries) this.count(tables.apply(entry))
        this.held = { ...this.held, version: event.value.version }
        this.heardAtMs = this.clock()
        return undefined
      }
      case 'heartbeat':
        return this.heartbeat(event.value)
      default:
        throw new StreamBroken('an event of a kind that is not known here')
    }
  }

  /** Forgets a snapshot that did not come to its end. */
  streamEnded(): void {
    this.loading = undefined
    this.noted = undefined
  }

  private heartbeat({ version, checksum, checksumBeginsWithout }: Heartbeat): Comparison | undefined {
    const tables = this.mustBeCurrent('a heartbeat')
    if (version !== this.held.version) {
      throw new StreamBroken(`api is at version ${version}, this replica at ${this.held.version}`)
    }
    this.heardAtMs = this.clock()
    const comparison = checksum && this.noted?.version === checksum.version ? compare(checksum, this.noted) : undefined
    if (checksumBeginsWithout) {
      tables.forgetEnded(checksumBeginsWithout.getTime())
      this.noted = { version, ...tables.checksum() }
    }
    return comparison
  }

  private swap(version: bigint, entries: bigint): void {
    const loading = this.mustBeLoading('the end of a snapshot')
    this.loading = undefined
    if (loading.version !== version || loading.entries !== entries) {
      throw new StreamBroken(
        `the snapshot of version ${loading.version} ended as version ${version}, with ${loading.entries} of ${entries} entries`,
      )
    }
    this.tables = loading.tables
    this.held = { epoch: loading.epoch, version }
    this.heardAtMs = this.clock()
    this.noted = undefined
  }

  private mustBeLoading(what: string): NonNullable<typeof this.loading> {
    if (!this.loading) throw new StreamBroken(`${what} came outside of a snapshot`)
    return this.loading
  }

  private mustBeCurrent(what: string): DirectoryTables {
    if (this.loading) throw new StreamBroken(`${what} came within a snapshot`)
    if (!this.tables) throw new StreamBroken(`${what} came before the first snapshot`)
    return this.tables
  }

  private count(taken: boolean): void {
    if (!taken) this.leftOut += 1
  }
}

const compare = (api: Checksum, replica: Checksum): Comparison => ({
  equal: api.entries === replica.entries && api.sum === replica.sum,
  api,
  replica,
})

const NOTHING = new DirectoryTables()
