import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isUniqueViolation } from '../../database'
import type { Device, Prisma, PrismaClient } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { DeviceChange, DeviceQuery, NewDevice } from './devices.schema'

/** Devices: made by people, known to the broker side through the directory. */
export class DeviceService {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly audit: AuditService,
  ) {}

  /** @throws DomainError `blueprint_unknown` when the organization has no such blueprint, `device_exists` */
  async create(actor: UserActor, organizationId: string, device: NewDevice): Promise<Device> {
    const blueprint = await this.prisma.blueprint.findFirst({ where: { id: device.blueprintId, organizationId } })
    if (!blueprint) {
      const message = 'The organization has no such blueprint.'
      throw new DomainError('invalid', 'blueprint_unknown', message, {
        errors: [{ field: 'body.blueprintId', message }],
      })
    }
    return taken(() =>
      this.prisma.$transaction(async (tx) => {
        const made = await tx.device.create({ data: { id: newId(), organizationId, ...device } })
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
    const contains = { contains: query.search, mode: 'insensitive' } as const
    const where: Prisma.DeviceWhereInput = {
      organizationId,
      ...(after ? { id: { gt: after } } : {}),
      ...(query.blueprintId ? { blueprintId: query.blueprintId } : {}),
      ...(query.state ? { state: query.state } : {}),
      ...(query.online === undefined ? {} : { online: query.online }),
      ...(query.search ? { OR: [{ name: contains }, { serialNumber: contains }] } : {}),
    }
    const rows = await this.prisma.device.findMany({ where, orderBy: { id: 'asc' }, take: query.limit + 1 })
    return pageFrom(rows, query.limit, (row) => row.id)
  }

  async get(id: string): Promise<Device> {
    return this.prisma.device.findUniqueOrThrow({ where: { id } })
  }

  /** @param expected `versionOf` the device that the caller has seen; another one now means somebody was faster
   *  @throws DomainError `device_changed`, `device_exists` */
  async change(actor: UserActor, id: string, change: DeviceChange, expected?: string): Promise<Device> {
    return taken(() =>
      this.prisma.$transaction(async (tx) => {
        await tx.$queryRaw`SELECT 1 FROM devices WHERE id = ${id}::uuid FOR UPDATE`
        const before = await tx.device.findUniqueOrThrow({ where: { id } })
        if (expected !== undefined && expected !== versionOf(before)) {
          throw new DomainError(
            'precondition',
            'device_changed',
            'Somebody else changed the device. Read it again first.',
          )
        }
        const after = await tx.device.update({ where: { id }, data: { ...change, updatedAt: new Date() } })
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
    return this.prisma.$transaction(async (tx) => {
      await tx.$queryRaw`SELECT 1 FROM devices WHERE id = ${id}::uuid FOR UPDATE`
      const before = await tx.device.findUniqueOrThrow({ where: { id } })
      const plans = {
        deviceId: id,
        kind: { in: ['disable', 'delete'] },
        databaseAt: null,
      } satisfies Prisma.RevocationWhereInput
      if ((await tx.revocation.count({ where: plans })) > 0) {
        throw new DomainError('conflict', 'device_being_disabled', 'The device is just being disabled or deleted.')
      }
      if (before.state === 'active') return before
      const after = await tx.device.update({ where: { id }, data: { state: 'active', updatedAt: new Date() } })
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
