import { DomainError } from '@ares/chassis'
import type { DeviceStatus } from '@ares/proto/devices/v1/devices'
import type { StatusStore, StoredStatus } from './status.store'

const MAX_STATUSES = 5_000

/** Takes what devices say about being online. */
export class StatusService {
  constructor(private readonly store: Pick<StatusStore, 'record'>) {}

  /**
   * Of several statuses of a device the newest stands; of those received in the same millisecond, the last.
   * @returns how many devices have a status that was not there before
   */
  async record(statuses: readonly DeviceStatus[]): Promise<number> {
    if (statuses.length === 0 || statuses.length > MAX_STATUSES) {
      throw new DomainError('invalid', 'invalid_statuses', `1 to ${MAX_STATUSES} statuses are taken at once.`)
    }
    const newest = new Map<string, StoredStatus>()
    for (const { deviceId, online, receivedAt } of statuses) {
      const before = newest.get(deviceId)
      if (!receivedAt) throw new DomainError('invalid', 'invalid_statuses', 'A status needs received_at.')
      if (!UUID.test(deviceId) || (before && before.receivedAt > receivedAt)) continue
      newest.set(deviceId, { deviceId, online, receivedAt })
    }
    return newest.size === 0 ? 0 : this.store.record([...newest.values()])
  }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
