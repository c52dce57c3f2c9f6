import { LRUCache } from 'lru-cache'
import type { DeviceHardware, HardwareSource } from './hardware'

export interface HardwareCacheOptions {
  /** Devices held at once; the least recently used ones go first. */
  readonly maxDevices?: number
  /** An entry that did not know a name is read again, but not more often than this. */
  readonly recheckAfterMs?: number
  /** Age at which an entry is read again while changes cannot be heard of. */
  readonly staleAfterMs?: number
  readonly now?: () => number
}

/**
 * The hardware of devices in memory, right after changes:
 * - a notification of the database (triggers on the tables; channel `ares_hardware`) removes what changed, in every
 *   replica of api; what was being read meanwhile is used once and not kept;
 * - while notifications cannot arrive, an entry lives a second only;
 * - a device that is unknown is remembered as unknown too, so that garbage costs no query a message.
 */
export class HardwareCache {
  private readonly entries: LRUCache<string, CachedDevice>
  /** Grows with each removal: what was read before must not be kept after. */
  private removals = 0
  private notified = false
  private readonly recheckAfterMs: number
  private readonly staleAfterMs: number
  private readonly now: () => number

  constructor(
    private readonly source: HardwareSource,
    options: HardwareCacheOptions = {},
  ) {
    this.entries = new LRUCache({ max: options.maxDevices ?? 100_000 })
    this.recheckAfterMs = options.recheckAfterMs ?? 1_000
    this.staleAfterMs = options.staleAfterMs ?? 1_000
    this.now = options.now ?? Date.now
  }

  /** Looks devices up; what is not in memory is read in one go. A device that does not exist maps to undefined. */
  async find(deviceIds: Iterable<string>): Promise<Map<string, DeviceHardware | undefined>> {
    const oldest = this.notified ? Number.NEGATIVE_INFINITY : this.now() - this.staleAfterMs
    return this.findNewerThan(oldest, deviceIds)
  }

  /** As `find`, for names that the devices used and `find` did not know: reads again unless that was just done. */
  async recheck(deviceIds: Iterable<string>): Promise<Map<string, DeviceHardware | undefined>> {
    return this.findNewerThan(this.now() - this.recheckAfterMs, deviceIds)
  }

  /** Forgets one device, or all of them. */
  remove(deviceId?: string): void {
    this.removals += 1
    if (deviceId === undefined) this.entries.clear()
    else this.entries.delete(deviceId)
  }

  /** Says whether notifications arrive. Whatever was held when that changed may be wrong, and is forgotten. */
  setNotified(notified: boolean): void {
    this.notified = notified
    this.remove()
  }

  private async findNewerThan(
    oldest: number,
    deviceIds: Iterable<string>,
  ): Promise<Map<string, DeviceHardware | undefined>> {
    const found = new Map<string, DeviceHardware | undefined>()
    const missing: string[] = []
    for (const deviceId of deviceIds) {
      const entry = this.entries.get(deviceId)
      if (entry && entry.readAt >= oldest) found.set(deviceId, entry.hardware)
      else if (UUID.test(deviceId)) missing.push(deviceId)
      else found.set(deviceId, undefined)
    }
    if (missing.length === 0) return found

    const { removals } = this
    const readAt = this.now()
    const loaded = new Map((await this.source.load(missing)).map((hardware) => [hardware.deviceId, hardware]))
    for (const deviceId of missing) {
      const hardware = loaded.get(deviceId)
      found.set(deviceId, hardware)
      if (this.removals === removals) this.entries.set(deviceId, { hardware, readAt })
    }
    return found
  }
}

interface CachedDevice {
  readonly hardware: DeviceHardware | undefined
  readonly readAt: number
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
