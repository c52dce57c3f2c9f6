import type { PrismaTransaction } from '../../database'
import type { Blueprint, ComponentInstance, Prisma, PrismaClient } from '../../generated/prisma/client'
import { newId } from '../../ids'
import type { BlueprintChange, NewBlueprint, NewComponentInstance, NewSupportedComponent } from './hardware.schema'

const WITH_METRICS = { metrics: { orderBy: { name: 'asc' } } } satisfies Prisma.SupportedComponentInclude
const WHOLE = { components: { include: WITH_METRICS, orderBy: { name: 'asc' } } } satisfies Prisma.BlueprintInclude

export type WholeBlueprint = Prisma.BlueprintGetPayload<{ include: typeof WHOLE }>
export type SupportedComponentWithMetrics = Prisma.SupportedComponentGetPayload<{ include: typeof WITH_METRICS }>

/** Blueprints, the components they support, and those that devices have, in the database. */
export class HardwareStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  createBlueprint(tx: PrismaTransaction, organizationId: string, blueprint: NewBlueprint): Promise<Blueprint> {
    return tx.blueprint.create({ data: { id: newId(), organizationId, ...blueprint } })
  }

  /** Oldest first. @param after id of the last one that was seen */
  listBlueprints(organizationId: string, limit: number, after?: string): Promise<Blueprint[]> {
    return this.prisma.blueprint.findMany({
      where: { organizationId, ...(after ? { id: { gt: after } } : {}) },
      orderBy: { id: 'asc' },
      take: limit,
    })
  }

  blueprint(id: string): Promise<WholeBlueprint> {
    return this.prisma.blueprint.findUniqueOrThrow({ where: { id }, include: WHOLE })
  }

  async hasBlueprint(organizationId: string, id: string): Promise<boolean> {
    return (await this.prisma.blueprint.count({ where: { id, organizationId } })) > 0
  }

  changeBlueprint(tx: PrismaTransaction, id: string, change: BlueprintChange): Promise<Blueprint> {
    return tx.blueprint.update({ where: { id }, data: change })
  }

  deleteBlueprint(tx: PrismaTransaction, id: string): Promise<Blueprint> {
    return tx.blueprint.delete({ where: { id } })
  }

  addComponent(
    tx: PrismaTransaction,
    blueprintId: string,
    component: NewSupportedComponent,
  ): Promise<SupportedComponentWithMetrics> {
    const metrics = { create: component.metrics.map((metric) => ({ id: newId(), ...metric })) }
    return tx.supportedComponent.create({
      data: { ...component, id: newId(), blueprintId, metrics },
      include: WITH_METRICS,
    })
  }

  instancesOf(deviceId: string): Promise<ComponentInstance[]> {
    return this.prisma.componentInstance.findMany({ where: { deviceId }, orderBy: { name: 'asc' } })
  }

  /** Whether the blueprint of the device has this component. */
  async isSupportedBy(deviceId: string, supportedComponentId: string): Promise<boolean> {
    const where = { id: supportedComponentId, blueprint: { devices: { some: { id: deviceId } } } }
    return (await this.prisma.supportedComponent.count({ where })) > 0
  }

  attach(tx: PrismaTransaction, deviceId: string, instance: NewComponentInstance): Promise<ComponentInstance> {
    return tx.componentInstance.create({ data: { deviceId, ...instance } })
  }
}
