import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isUniqueViolation } from '../../database'
import type { Device } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { HardwareService } from '../hardware/hardware.service'
import type { DeviceChange, DeviceQuery, NewDevice } from './devices.schema'
import type { DeviceStore } from './devices.store'

/** Devices: made by people, known to the broker side through the directory. */
export class DeviceService {
  constructor(
    private readonly store: DeviceStore,
    private readonly hardware: HardwareService,
    private readonly audit: AuditService,
  ) {}

  /** @throws DomainError `blueprint_unknown` when the organization has no such blueprint, `device_exists` */
  async create(actor: UserActor, organizationId: string, device: NewDevice): Promise<Device> {
    await this.hardware.requireBlueprint(organizationId, device.blueprintId)
    return taken(() =>
      this.store.transaction(async (tx) => {
        const made = await this.store.create(tx, organizationId, device)
        await this.audit.record(tx, {
          actor,
          action: 'device.created',
          subject: { kind: 'device', id: made.id },
          organizationId,
          detail: { name: made.name },
        })
        await recordDirectoryChange(tx, { kind: 'device', id: made.id })
        return made
      }),
    )
  }

  /** Oldest first. */
  async list(organizationId: string, query: DeviceQuery): Promise<Page<Device>> {
    const after = decodeCursor(query.cursor, z.uuid())
    const rows = await this.store.list(organizationId, query, query.limit + 1, after)
    return pageFrom(rows, query.limit, (row) => row.id)
  }

  get(id: string): Promise<Device> {
    return this.store.get(id)
  }

  /** @param expected `versionOf` the device that the caller has seen; another one now means somebody was faster
   *  @throws DomainError `device_changed`, `device_exists` */
  async change(actor: UserActor, id: string, change: DeviceChange, expected?: string): Promise<Device> {
    return taken(() =>
      this.store.transaction(async (tx) => {
        const before = await this.store.lock(tx, id)
        if (expected !== undefined && expected !== versionOf(before)) {
          throw new DomainError(
            'precondition',
            'device_changed',
            'Somebody else changed the device. Read it again first.',
          )
        }
        const after = await this.store.change(tx, id, change)
        await this.audit.record(tx, {
          actor,
          action: 'device.changed',
          subject: { kind: 'device', id },
          organizationId: after.organizationId,
          detail: change,
        })
        return after
      }),
    )
  }

  /** Switches a device on again. Certificates that were revoked stay revoked: it may need a new one.
   *  @throws DomainError `device_being_disabled` while its revocation has not come to the database */
  async enable(actor: UserActor, id: string): Promise<Device> {
    return this.store.transaction(async (tx) => {
      const before = await this.store.lock(tx, id)
      if (await this.store.isLeaving(tx, id)) {
        throw new DomainError('conflict', 'device_being_disabled', 'The device is just being disabled or deleted.')
      }
      if (before.state === 'active') return before
      const after = await this.store.change(tx, id, { state: 'active' })
      await this.audit.record(tx, {
        actor,
        action: 'device.enabled',
        subject: { kind: 'device', id },
        organizationId: after.organizationId,
      })
      await recordDirectoryChange(tx, { kind: 'device', id })
      return after
    })
  }
}

/** Changes with what people write, not with what the device reports. */
export const versionOf = (device: Pick<Device, 'updatedAt'>): string => `"${device.updatedAt.getTime().toString(36)}"`

async function taken<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isUniqueViolation(error)) throw error
    throw new DomainError('conflict', 'device_exists', 'The organization has a device of this name or serial number.')
  }
}
