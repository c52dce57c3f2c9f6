import type { Logger } from '@ares/chassis'
import type { Checksum, WatchDirectoryRequest, WatchDirectoryResponse } from '@ares/proto/directory/v1/directory'
import type { Notifications } from '../../database/notifications'
import type { ChecksumBegun, DirectoryReader } from './directory'

export interface DirectoryFeedOptions {
  /** Pause without a change after which a heartbeat goes out; the contract says at most 5 s. */
  readonly heartbeatMs?: number
  /** How long nothing may be noticed when notifications do not arrive. */
  readonly pollMs?: number
  /** When a watcher is compared with the database for the first time, after its stream began; default 10 s. */
  readonly firstChecksumMs?: number
  /** How long after the beginning of one comparison the next one begins; default 10 min. */
  readonly checksumMs?: number
  readonly logger?: Pick<Logger, 'warn'>
}

/** Where the events of one watcher go. `send` settles when there is room for the next one. */
export interface DirectoryWatcher {
  send(event: WatchDirectoryResponse): Promise<void>
  readonly signal: AbortSignal
}

const CHANGES_AT_ONCE = 500

/** How far a watcher is. One that confirms is as far as it says, another as far as was written to it. */
interface Watch {
  readonly id: string
  held: bigint
}

/** The comparison of one watcher with the database. */
interface Comparing {
  dueAt: number
  /** Computed, and not sent yet. */
  checksum: Checksum | undefined
}

/**
 * Streams the directory to the authorizers.
 *
 *   START ──version kept, same epoch──▶ FOLLOWING ──nudge | poll──▶ read what is after our version ──▶ FOLLOWING
 *     │                                    ▲    └──nothing for a while──▶ heartbeat
 *     └──otherwise──▶ SNAPSHOT ────────────┘
 *
 * What is sent is always read from the table by version: a notification only says that it is time to look, so a lost one
 * costs `pollMs` and no change. A watcher holds one event at a time; a slow one delays nobody but itself.
 *
 * Now and then each watcher is told the checksum of the database at a version, so that it knows whether it holds the same.
 * It is computed from all rows, beside the stream: also a change that was never written down shows.
 */
export class DirectoryFeed {
  private readonly wakings = new Set<Waking>()
  private readonly watches = new Set<Watch>()
  private readonly waiters = new Set<() => void>()
  private readonly heartbeatMs: number
  private readonly pollMs: number
  /** One at a time: it reads everything. */
  private computing = false

  constructor(
    private readonly reader: DirectoryReader,
    notifications: Pick<Notifications, 'on' | 'onGap'>,
    private readonly options: DirectoryFeedOptions = {},
  ) {
    this.heartbeatMs = options.heartbeatMs ?? 4_000
    this.pollMs = options.pollMs ?? 1_000
    notifications.on('ares_directory', () => this.nudge())
    notifications.onGap(() => this.nudge())
  }

  /** Says that something was committed: quicker than the database's own notification. */
  nudge(): void {
    for (const waking of this.wakings) waking.wake()
  }

  /** Serves one watcher. Settles only by an error of the database or of the watcher, or when the watcher has left. */
  async watch(request: WatchDirectoryRequest, watcher: DirectoryWatcher): Promise<void> {
    const waking = new Waking()
    const watch: Watch = { id: request.watchId, held: 0n }
    const leave = () => waking.wake()
    watcher.signal.addEventListener('abort', leave)
    this.wakings.add(waking)
    this.watches.add(watch)
    try {
      const from = await this.start(request, watcher)
      // What it came with it has; what was written to it, it has yet to confirm.
      this.wrote(watch, from, request.fromVersion === from)
      await this.follow(from, watcher, waking, watch)
    } finally {
      this.watches.delete(watch)
      this.tellWaiters()
      this.wakings.delete(waking)
      watcher.signal.removeEventListener('abort', leave)
    }
  }

  /** A watcher decides from this version now. */
  confirm(watchId: string, version: bigint): void {
    for (const watch of this.watches) {
      if (watchId === '' || watch.id !== watchId || watch.held >= version) continue
      watch.held = version
      this.tellWaiters()
    }
  }

  /**
   * Settles when every watcher of this process decides from that version or a newer one; watchers of other processes of
   * api get a change at the same time, but are not waited for.
   * @returns false: not within the time, or nobody watches here
   */
  async reached(version: bigint, withinMs: number): Promise<boolean> {
    this.nudge()
    const end = Date.now() + withinMs
    while (!this.isHeld(version)) {
      const left = end - Date.now()
      if (left <= 0) return false
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer)
          this.waiters.delete(done)
          resolve()
        }
        const timer = setTimeout(done, left)
        this.waiters.add(done)
      })
    }
    return true
  }

  private isHeld(version: bigint): boolean {
    return this.watches.size > 0 && [...this.watches].every(({ held }) => held >= version)
  }

  /** @param certain the watcher itself has said so */
  private wrote(watch: Watch, version: bigint, certain = false): void {
    if ((watch.id !== '' && !certain) || watch.held >= version) return
    watch.held = version
    this.tellWaiters()
  }

  private tellWaiters(): void {
    for (const waiter of this.waiters) waiter()
  }

  private async follow(from: bigint, watcher: DirectoryWatcher, waking: Waking, watch: Watch): Promise<void> {
    let version = from
    let sentAt = Date.now()
    const comparing: Comparing = { dueAt: sentAt + (this.options.firstChecksumMs ?? 10_000), checksum: undefined }
    while (!watcher.signal.aborted) {
      waking.reset() // before reading: what is committed from here on wakes us
      const changes = await this.reader.changesAfter(version, CHANGES_AT_ONCE)
      if (!changes) version = await this.sendSnapshot(watcher)
      for (const change of changes ?? []) {
        await watcher.send({ event: { $case: 'change', value: change } })
        version = change.version
      }
      this.wrote(watch, version)
      if (!changes || changes.length > 0) {
        sentAt = Date.now()
        continue
      }
      // We have just read that this version is the newest, so it is true to say so; and every entry that was sent is as it
      // is at this version, so this is the moment to compare.
      const { checksum } = comparing
      const checksumBeginsWithout = await this.beginChecksum(version, comparing, waking)
      if (checksum || checksumBeginsWithout || Date.now() - sentAt >= this.heartbeatMs) {
        const heartbeat = { version, sentAt: new Date(), checksum, checksumBeginsWithout }
        await watcher.send({ event: { $case: 'heartbeat', value: heartbeat } })
        if (checksum) comparing.checksum = undefined
        sentAt = Date.now()
      }
      await waking.within(Math.min(this.pollMs, Math.max(1, sentAt + this.heartbeatMs - Date.now())))
    }
  }

  /** @returns what the watcher has to forget before it compares; undefined: nothing was begun */
  private async beginChecksum(version: bigint, comparing: Comparing, waking: Waking): Promise<Date | undefined> {
    if (this.computing || comparing.checksum || Date.now() < comparing.dueAt) return undefined
    this.computing = true
    try {
      const begun = await this.reader.beginChecksum()
      if (begun.version !== version) {
        await begun.cancel()
        this.computing = false
        return undefined // a change came in between; the next look tries again
      }
      comparing.dueAt = Date.now() + (this.options.checksumMs ?? 600_000)
      void this.compute(begun, comparing, waking)
      return begun.without
    } catch (error) {
      this.computing = false
      throw error
    }
  }

  private async compute(begun: ChecksumBegun, comparing: Comparing, waking: Waking): Promise<void> {
    try {
      comparing.checksum = await begun.compute()
      waking.wake()
    } catch (error) {
      this.options.logger?.warn('the checksum of the directory could not be computed; trying again later', {
        error: String(error),
      })
    } finally {
      this.computing = false
    }
  }

  /** @returns the version that the watcher holds then */
  private async start(request: WatchDirectoryRequest, watcher: DirectoryWatcher): Promise<bigint> {
    const { epoch } = await this.reader.head()
    const version = request.fromVersion
    const resumes = version > 0n && request.epoch === epoch && (await this.reader.changesAfter(version, 1))
    return resumes ? version : this.sendSnapshot(watcher)
  }

  private async sendSnapshot(watcher: DirectoryWatcher): Promise<bigint> {
    let version = 0n
    await this.reader.snapshot({
      begin: async (head) => {
        version = head.version
        await watcher.send({ event: { $case: 'snapshotBegin', value: head } })
      },
      chunk: (entries) => watcher.send({ event: { $case: 'snapshotChunk', value: { entries } } }),
      end: (entries) => watcher.send({ event: { $case: 'snapshotEnd', value: { version, entries: BigInt(entries) } } }),
    })
    return version
  }
}

/** Wakes one sleeper; a call before the sleep is not lost. */
class Waking {
  private awake = false
  private sleeper: (() => void) | undefined

  reset(): void {
    this.awake = false
  }

  wake(): void {
    this.awake = true
    this.sleeper?.()
  }

  async within(ms: number): Promise<void> {
    if (this.awake) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.sleeper = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.sleeper = undefined
  }
}
