import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { isForeignKeyViolation, isUniqueViolation } from '../../database'
import type { Blueprint, ComponentInstance } from '../../generated/prisma/client'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditService } from '../audit/audit.service'
import type { BlueprintChange, NewBlueprint, NewComponentInstance, NewSupportedComponent } from './hardware.schema'
import type { HardwareStore, SupportedComponentWithMetrics, WholeBlueprint } from './hardware.store'

/** What devices are made of: a blueprint lists the components it supports, a component the metrics it measures. */
export class HardwareService {
  constructor(
    private readonly store: HardwareStore,
    private readonly audit: AuditService,
  ) {}

  /** @throws DomainError `blueprint_exists` */
  async createBlueprint(actor: UserActor, organizationId: string, blueprint: NewBlueprint): Promise<Blueprint> {
    return nameTaken('blueprint_exists', 'The organization has a blueprint of this name.', () =>
      this.store.transaction(async (tx) => {
        const made = await this.store.createBlueprint(tx, organizationId, blueprint)
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
    const rows = await this.store.listBlueprints(organizationId, page.limit + 1, after)
    return pageFrom(rows, page.limit, (row) => row.id)
  }

  blueprint(id: string): Promise<WholeBlueprint> {
    return this.store.blueprint(id)
  }

  /** @throws DomainError `blueprint_unknown` when the organization has no such blueprint */
  async requireBlueprint(organizationId: string, blueprintId: string): Promise<void> {
    if (await this.store.hasBlueprint(organizationId, blueprintId)) return
    const message = 'The organization has no such blueprint.'
    throw new DomainError('invalid', 'blueprint_unknown', message, {
      errors: [{ field: 'body.blueprintId', message }],
    })
  }

  /** @throws DomainError `blueprint_exists` */
  async changeBlueprint(
    actor: UserActor,
    organizationId: string,
    id: string,
    change: BlueprintChange,
  ): Promise<Blueprint> {
    return nameTaken('blueprint_exists', 'The organization has a blueprint of this name.', () =>
      this.store.transaction(async (tx) => {
        const changed = await this.store.changeBlueprint(tx, id, change)
        const subject = { kind: 'blueprint', id }
        await this.audit.record(tx, { actor, action: 'blueprint.changed', subject, organizationId, detail: change })
        return changed
      }),
    )
  }

  /** @throws DomainError `blueprint_in_use` while a device is made after it */
  async deleteBlueprint(actor: UserActor, organizationId: string, id: string): Promise<void> {
    try {
      await this.store.transaction(async (tx) => {
        const { name } = await this.store.deleteBlueprint(tx, id)
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
      this.store.transaction(async (tx) => {
        const made = await this.store.addComponent(tx, blueprintId, component)
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
  instancesOf(deviceId: string): Promise<ComponentInstance[]> {
    return this.store.instancesOf(deviceId)
  }

  /** @throws DomainError `component_not_supported` when the device's blueprint has no such component,
   *  `component_exists` */
  async attach(
    actor: UserActor,
    organizationId: string,
    deviceId: string,
    instance: NewComponentInstance,
  ): Promise<ComponentInstance> {
    const { supportedComponentId } = instance
    if (!(await this.store.isSupportedBy(deviceId, supportedComponentId))) {
      const detail = 'The blueprint of the device has no such component.'
      throw new DomainError('invalid', 'component_not_supported', detail, {
        errors: [{ field: 'body.supportedComponentId', message: detail }],
      })
    }
    return nameTaken('component_exists', 'The device has a component of this name.', () =>
      this.store.transaction(async (tx) => {
        const made = await this.store.attach(tx, deviceId, instance)
        await this.audit.record(tx, {
          actor,
          action: 'device.component_attached',
          subject: { kind: 'device', id: deviceId },
          organizationId,
          detail: { name: made.name, supportedComponentId },
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
