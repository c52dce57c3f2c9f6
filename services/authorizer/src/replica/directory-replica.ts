import type { WatchDirectoryResponse } from '@ares/proto/directory/v1/directory'
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

/**
 * DirectoryReplica: the directory as api last told it.
 *
 *   EMPTY ──begin──▶ LOADING ──end, count agrees──▶ CURRENT ──change (version + 1)──▶ CURRENT
 *                       ▲                              │
 *                       └────────────begin─────────────┘   (the old tables answer until the new ones are complete)
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

  /** Takes one event of the stream. @throws StreamBroken when it cannot be what comes next */
  receive({ event }: WatchDirectoryResponse): void {
    switch (event?.$case) {
      case 'snapshotBegin':
        this.loading = { tables: new DirectoryTables(), ...event.value, entries: 0n }
        return
      case 'snapshotChunk': {
        const loading = this.mustBeLoading('a chunk')
        for (const entry of event.value.entries) this.count(loading.tables.apply(entry))
        loading.entries += BigInt(event.value.entries.length)
        return
      }
      case 'snapshotEnd':
        this.swap(event.value.version, event.value.entries)
        return
      case 'change': {
        const tables = this.mustBeCurrent('a change')
        if (event.value.version !== this.held.version + 1n) {
          throw new StreamBroken(`change ${event.value.version} came after version ${this.held.version}`)
        }
        for (const entry of event.value.entries) this.count(tables.apply(entry))
        this.held = { ...this.held, version: event.value.version }
        this.heardAtMs = this.clock()
        return
      }
      case 'heartbeat':
        this.mustBeCurrent('a heartbeat')
        if (event.value.version !== this.held.version) {
          throw new StreamBroken(`api is at version ${event.value.version}, this replica at ${this.held.version}`)
        }
        this.heardAtMs = this.clock()
        return
      default:
        throw new StreamBroken('an event of a kind that is not known here')
    }
  }

  /** Forgets a snapshot that did not come to its end. */
  streamEnded(): void {
    this.loading = undefined
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

const NOTHING = new DirectoryTables()
