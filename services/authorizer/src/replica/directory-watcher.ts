import { randomUUID } from 'node:crypto'
import { Backoff, callMetadata, type Logger, unary } from '@ares/chassis'
import type { DirectoryServiceClient, WatchDirectoryResponse } from '@ares/proto/directory/v1/directory'
import type { ClientReadableStream } from '@grpc/grpc-js'
import { type Comparison, type DirectoryReplica, StreamBroken } from './directory-replica'

/** api sends something every 5 s; three times nothing and the stream is dead, whatever TCP says. */
const SILENCE_MS = 15_000
const CONFIRM_WITHIN_MS = 2_000

/** A difference that a new snapshot does not heal is not healed by the next one either: it would only cost both sides. */
const HEAL_EVERY_MS = 3_600_000

/** Why a stream ended. `differs`: the replica's checksum was not api's. */
export type StreamEnd = 'error' | 'ended' | 'silent' | 'broken' | 'differs'

/**
 * DirectoryWatcher keeps the replica's stream open.
 *
 *   OPEN ──error | end | silence | broken──▶ WAITING (0.1 to 1 s, growing) ──▶ OPEN, from the version that is held
 *
 * A stream that breaks its rules twice without an event in between that fits is asked for a new snapshot.
 *
 * A replica whose checksum is not api's goes on answering and asks for a new snapshot, once an hour at most: whatever was
 * lost or changed in it is healed then.
 *
 * Each new version is confirmed to api, which waits for that before it cuts a revoked client off. A confirmation that
 * fails is made again with the next event, a heartbeat at the latest.
 */
export class DirectoryWatcher {
  private readonly backoff = new Backoff(100, 1_000)
  private stream: ClientReadableStream<WatchDirectoryResponse> | undefined
  private silence: NodeJS.Timeout | undefined
  private waiting: NodeJS.Timeout | undefined
  private brokenInARow = 0
  private watchId = ''
  private confirmed = 0n
  private confirming = false
  private stopped = false
  private differed = false
  private healedAtMs = Number.NEGATIVE_INFINITY

  constructor(
    private readonly options: {
      readonly client: DirectoryServiceClient
      readonly replica: DirectoryReplica
      readonly logger: Logger
      /** Default 15 s. */
      readonly silenceMs?: number
      /** Called with each end of a stream. */
      readonly onEnd?: (why: StreamEnd) => void
      /** Called with each comparison of checksums. */
      readonly onCompared?: (result: 'equal' | 'differs') => void
      /** Default 1 h. */
      readonly healEveryMs?: number
    },
  ) {}

  start(): void {
    this.open()
  }

  stop(): void {
    this.stopped = true
    clearTimeout(this.waiting)
    this.drop()
  }

  private open(): void {
    const { client, replica } = this.options
    const anew = this.brokenInARow > 1 || this.differed
    const { epoch, version } = anew ? { epoch: '', version: 0n } : replica.position
    this.watchId = randomUUID()
    this.confirmed = version
    const stream = client.watchDirectory({ epoch, fromVersion: version, watchId: this.watchId }, callMetadata())
    this.stream = stream
    this.expectSomething()
    stream.on('data', (event: WatchDirectoryResponse) => {
      if (this.stream !== stream) return
      this.expectSomething()
      this.take(event)
    })
    stream.on('error', (error) => {
      if (this.stream === stream) this.again('error', error.message)
    })
    stream.on('end', () => {
      if (this.stream === stream) this.again('ended', 'api ended it')
    })
  }

  private take(event: WatchDirectoryResponse): void {
    const { replica, logger } = this.options
    let comparison: Comparison | undefined
    try {
      comparison = replica.receive(event)
    } catch (error) {
      if (!(error instanceof StreamBroken)) throw error
      this.brokenInARow += 1
      this.again('broken', error.message)
      return
    }
    const kind = event.event?.$case
    if (kind === 'snapshotBegin' || kind === 'snapshotChunk') return
    this.brokenInARow = 0
    this.backoff.reset()
    if (comparison && !this.agrees(comparison)) return
    if (kind === 'snapshotEnd') {
      this.differed = false
      logger.info('directory loaded', { version: String(replica.position.version), ...replica.sizes() })
    }
    if (replica.position.version > this.confirmed) void this.confirm()
  }

  /** @returns false: the stream is opened again for a snapshot */
  private agrees({ equal, api, replica }: Comparison): boolean {
    const { logger, onCompared, healEveryMs = HEAL_EVERY_MS } = this.options
    onCompared?.(equal ? 'equal' : 'differs')
    if (equal) return true
    const heals = performance.now() - this.healedAtMs >= healEveryMs
    logger.error("the replica of the directory is not what api's database holds", {
      version: String(api.version),
      entries: { api: String(api.entries), replica: String(replica.entries) },
      heals: heals ? 'by a new snapshot, now' : 'later: a new snapshot did not help within the hour',
    })
    if (!heals) return true
    this.healedAtMs = performance.now()
    this.differed = true
    this.again('differs', 'its checksum is not the one of api')
    return false
  }

  /** One call at a time; what came meanwhile goes with the next one. */
  private async confirm(): Promise<void> {
    if (this.confirming) return
    this.confirming = true
    const { client, replica, logger } = this.options
    try {
      while (!this.stopped && this.stream && replica.position.version > this.confirmed) {
        const { version } = replica.position
        const request = { watchId: this.watchId, version }
        await unary(client, client.confirmDirectory, request, { deadlineMs: CONFIRM_WITHIN_MS })
        if (request.watchId === this.watchId) this.confirmed = version
      }
    } catch (error) {
      // An api without this method is one of the reasons; the stream itself says so when api is gone.
      logger.debug('api was not told which version is held', { error: String(error) })
    } finally {
      this.confirming = false
    }
  }

  private again(why: StreamEnd, detail: string): void {
    this.drop()
    if (this.stopped) return
    const waitMs = Math.round(this.backoff.next())
    this.options.onEnd?.(why)
    const { replica, logger } = this.options
    const consequence = replica.knowledge() ? 'answering from what is known' : 'nothing is known yet, nobody gets in'
    logger.warn(`the directory stream is gone; ${consequence}`, {
      why,
      detail,
      version: String(replica.position.version),
      waitMs,
    })
    this.waiting = setTimeout(() => this.open(), waitMs)
  }

  private drop(): void {
    clearTimeout(this.silence)
    const stream = this.stream
    this.stream = undefined
    stream?.cancel()
    this.options.replica.streamEnded()
  }

  private expectSomething(): void {
    clearTimeout(this.silence)
    const silenceMs = this.options.silenceMs ?? SILENCE_MS
    this.silence = setTimeout(() => this.again('silent', `nothing for ${silenceMs} ms`), silenceMs)
  }
}
