import type { PrismaTransaction } from '../../database'
import type { Device, PrismaClient } from '../../generated/prisma/client'
import type { DeviceState } from '../../generated/prisma/enums'
import { newId } from '../../ids'
import type { DeviceChange, DeviceQuery, NewDevice } from './devices.schema'

/** Devices in the database. */
export class DeviceStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  create(tx: PrismaTransaction, organizationId: string, device: NewDevice): Promise<Device> {
    return tx.device.create({ data: { id: newId(), organizationId, ...device } })
  }

  /** Oldest first. @param after id of the last one that was seen */
  list(
    organizationId: string,
    { blueprintId, state, online, search }: Pick<DeviceQuery, 'blueprintId' | 'state' | 'online' | 'search'>,
    limit: number,
    after?: string,
  ): Promise<Device[]> {
    const contains = { contains: search, mode: 'insensitive' } as const
    return this.prisma.device.findMany({
      where: {
        organizationId,
        ...(after ? { id: { gt: after } } : {}),
        ...(blueprintId ? { blueprintId } : {}),
        ...(state ? { state } : {}),
        ...(online === undefined ? {} : { online }),
        ...(search ? { OR: [{ name: contains }, { serialNumber: contains }] } : {}),
      },
      orderBy: { id: 'asc' },
      take: limit,
    })
  }

  get(id: string): Promise<Device> {
    return this.prisma.device.findUniqueOrThrow({ where: { id } })
  }

  /** The device as it is, and nobody else changes it until the transaction ends. */
  async lock(tx: PrismaTransaction, id: string): Promise<Device> {
    await tx.$queryRaw`SELECT 1 FROM devices WHERE id = ${id}::uuid FOR UPDATE`
    return tx.device.findUniqueOrThrow({ where: { id } })
  }

  /** Whether somebody asked for its end, and that has not come to its row yet. */
  async isLeaving(tx: PrismaTransaction, id: string): Promise<boolean> {
    const plans = await tx.revocation.count({
      where: { deviceId: id, kind: { in: ['disable', 'delete'] }, databaseAt: null },
    })
    return plans > 0
  }

  change(tx: PrismaTransaction, id: string, change: DeviceChange & { readonly state?: DeviceState }): Promise<Device> {
    return tx.device.update({ where: { id }, data: { ...change, updatedAt: new Date() } })
  }
}
