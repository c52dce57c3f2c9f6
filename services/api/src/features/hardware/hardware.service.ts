import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isForeignKeyViolation, isUniqueViolation } from '../../database'
import type { Blueprint, ComponentInstance, Prisma, PrismaClient } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import type { BlueprintChange, NewBlueprint, NewComponentInstance, NewSupportedComponent } from './hardware.schema'

const WITH_METRICS = { metrics: { orderBy: { name: 'asc' } } } satisfies Prisma.SupportedComponentInclude
const WHOLE = { components: { include: WITH_METRICS, orderBy: { name: 'asc' } } } satisfies Prisma.BlueprintInclude

export type WholeBlueprint = Prisma.BlueprintGetPayload<{ include: typeof WHOLE }>
export type SupportedComponentWithMetrics = Prisma.SupportedComponentGetPayload<{ include: typeof WITH_METRICS }>

/** What devices are made of: a blueprint lists the components it supports, a component the metrics it measures. */
export class HardwareService {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly audit: AuditService,
  ) {}

  /** @throws DomainError `blueprint_exists` */
  async createBlueprint(actor: UserActor, organizationId: string, blueprint: NewBlueprint): Promise<Blueprint> {
    return nameTaken('blueprint_exists', 'The organization has a blueprint of this name.', () =>
      this.prisma.$transaction(async (tx) => {
        const made = await tx.blueprint.create({ data: { id: newId(), organizationId, ...blueprint } })
        await this.audit.record(tx, {
          actor,
          action: 'blueprint.created',
          subject: { kind: 'blueprint', id: made.id },
          organizationId,
          detail: { name: made.name },
        })
        return made
      }),
    )
  }

  async listBlueprints(organizationId: string, page: { limit: number; cursor?: string }): Promise<Page<Blueprint>> {
    const after = decodeCursor(page.cursor, z.uuid())
    const rows = await this.prisma.blueprint.findMany({
      where: { organizationId, ...(after ? { id: { gt: after } } : {}) },
      orderBy: { id: 'asc' },
      take: page.limit + 1,
    })
    return pageFrom(rows, page.limit, (row) => row.id)
  }

  async blueprint(id: string): Promise<WholeBlueprint> {
    return this.prisma.blueprint.findUniqueOrThrow({ where: { id }, include: WHOLE })
  }

  /** @throws DomainError `blueprint_exists` */
  async changeBlueprint(
    actor: UserActor,
    organizationId: string,
    id: string,
    change: BlueprintChange,
  ): Promise<Blueprint> {
    return nameTaken('blueprint_exists', 'The organization has a blueprint of this name.', () =>
      this.prisma.$transaction(async (tx) => {
        const changed = await tx.blueprint.update({ where: { id }, data: change })
        const subject = { kind: 'blueprint', id }
        await this.audit.record(tx, { actor, action: 'blueprint.changed', subject, organizationId, detail: change })
        return changed
      }),
    )
  }

  /** @throws DomainError `blueprint_in_use` while a device is made after it */
  async deleteBlueprint(actor: UserActor, organizationId: string, id: string): Promise<void> {
    try {
      await this.prisma.$transaction(async (tx) => {
        const { name } = await tx.blueprint.delete({ where: { id } })
        const subject = { kind: 'blueprint', id }
        await this.audit.record(tx, { actor, action: 'blueprint.deleted', subject, organizationId, detail: { name } })
      })
    } catch (error) {
      if (!isForeignKeyViolation(error)) throw error
      throw new DomainError('conflict', 'blueprint_in_use', 'There are devices made after this blueprint.')
    }
  }

  /** @throws DomainError `component_exists` */
  async addComponent(
    actor: UserActor,
    organizationId: string,
    blueprintId: string,
    component: NewSupportedComponent,
  ): Promise<SupportedComponentWithMetrics> {
    return nameTaken('component_exists', 'The blueprint has a component of this name.', () =>
      this.prisma.$transaction(async (tx) => {
        const metrics = { create: component.metrics.map((metric) => ({ id: newId(), ...metric })) }
        const made = await tx.supportedComponent.create({
          data: { ...component, id: newId(), blueprintId, metrics },
          include: WITH_METRICS,
        })
        await this.audit.record(tx, {
          actor,
          action: 'blueprint.component_added',
          subject: { kind: 'blueprint', id: blueprintId },
          organizationId,
          detail: { name: made.name, supportedComponentId: made.id },
        })
        return made
      }),
    )
  }

  /** The components that a device really has. */
  async instancesOf(deviceId: string): Promise<ComponentInstance[]> {
    return this.prisma.componentInstance.findMany({ where: { deviceId }, orderBy: { name: 'asc' } })
  }

  /** @throws DomainError `component_not_supported` when the device's blueprint has no such component,
   *  `component_exists` */
  async attach(
    actor: UserActor,
    organizationId: string,
    deviceId: string,
    instance: NewComponentInstance,
  ): Promise<ComponentInstance> {
    const supported = await this.prisma.supportedComponent.findFirst({
      where: { id: instance.supportedComponentId, blueprint: { devices: { some: { id: deviceId } } } },
    })
    if (!supported) {
      const detail = 'The blueprint of the device has no such component.'
      throw new DomainError('invalid', 'component_not_supported', detail, {
        errors: [{ field: 'body.supportedComponentId', message: detail }],
      })
    }
    return nameTaken('component_exists', 'The device has a component of this name.', () =>
      this.prisma.$transaction(async (tx) => {
        const made = await tx.componentInstance.create({ data: { deviceId, ...instance } })
        await this.audit.record(tx, {
          actor,
          action: 'device.component_attached',
          subject: { kind: 'device', id: deviceId },
          organizationId,
          detail: { name: made.name, supportedComponentId: supported.id },
        })
        return made
      }),
    )
  }
}

async function nameTaken<T>(code: string, detail: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (isUniqueViolation(error)) throw new DomainError('conflict', code, detail)
    throw error
  }
}
