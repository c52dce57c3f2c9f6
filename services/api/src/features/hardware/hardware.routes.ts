import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import { pageOf, pageQuery } from '../../http/shapes'
import {
  blueprint,
  blueprintChange,
  componentInstance,
  newBlueprint,
  newComponentInstance,
  newSupportedComponent,
  supportedComponent,
  wholeBlueprint,
} from './hardware.schema'
import type { HardwareService } from './hardware.service'

export function hardwareRoutes(hardware: HardwareService): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/organizations/{organizationId}/blueprints',
      tag: 'hardware',
      summary: 'Makes a blueprint: a kind of device.',
      access: scoped('organization', 'organizationId', 'operator'),
      body: newBlueprint,
      answer: { status: 201, body: blueprint, description: 'Made.' },
      problems: { blueprint_exists: 'the name is taken' },
      handle: ({ actor, organizationId, body }) => hardware.createBlueprint(actor, organizationId, body),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/blueprints',
      tag: 'hardware',
      summary: 'The blueprints of an organization.',
      access: scoped('organization', 'organizationId', 'viewer'),
      query: pageQuery(),
      answer: { status: 200, body: pageOf(blueprint), description: 'A page, oldest first.' },
      handle: ({ organizationId, query }) => hardware.listBlueprints(organizationId, query),
    }),
    defineRoute({
      method: 'get',
      path: '/blueprints/{blueprintId}',
      tag: 'hardware',
      summary: 'A blueprint with its components and their metrics.',
      access: scoped('blueprint', 'blueprintId', 'viewer'),
      answer: { status: 200, body: wholeBlueprint, description: 'The blueprint.' },
      handle: ({ params }) => hardware.blueprint(params.blueprintId),
    }),
    defineRoute({
      method: 'patch',
      path: '/blueprints/{blueprintId}',
      tag: 'hardware',
      summary: 'Changes a blueprint.',
      access: scoped('blueprint', 'blueprintId', 'operator'),
      body: blueprintChange,
      answer: { status: 200, body: blueprint, description: 'The blueprint as it is now.' },
      problems: { blueprint_exists: 'the name is taken' },
      handle: ({ actor, organizationId, params, body }) =>
        hardware.changeBlueprint(actor, organizationId, params.blueprintId, body),
    }),
    defineRoute({
      method: 'delete',
      path: '/blueprints/{blueprintId}',
      tag: 'hardware',
      summary: 'Deletes a blueprint that no device is made after.',
      access: scoped('blueprint', 'blueprintId', 'owner'),
      answer: { status: 204, description: 'Deleted.' },
      problems: { blueprint_in_use: 'there are devices of it' },
      handle: async ({ actor, organizationId, params }) => {
        await hardware.deleteBlueprint(actor, organizationId, params.blueprintId)
        return undefined
      },
    }),
    defineRoute({
      method: 'post',
      path: '/blueprints/{blueprintId}/components',
      tag: 'hardware',
      summary: 'Adds a component that devices of this blueprint may have, with its metrics.',
      access: scoped('blueprint', 'blueprintId', 'operator'),
      body: newSupportedComponent,
      answer: { status: 201, body: supportedComponent, description: 'Added.' },
      problems: { component_exists: 'the name is taken' },
      handle: ({ actor, organizationId, params, body }) =>
        hardware.addComponent(actor, organizationId, params.blueprintId, body),
    }),
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/components',
      tag: 'hardware',
      summary: 'Attaches a component to a device, under the name the device uses in its reports.',
      access: scoped('device', 'deviceId', 'operator'),
      body: newComponentInstance,
      answer: { status: 201, body: componentInstance, description: 'Attached.' },
      problems: {
        component_not_supported: "the device's blueprint has no such component",
        component_exists: 'the name is taken',
      },
      handle: ({ actor, organizationId, params, body }) =>
        hardware.attach(actor, organizationId, params.deviceId, body),
    }),
    defineRoute({
      method: 'get',
      path: '/devices/{deviceId}/components',
      tag: 'hardware',
      summary: 'The components of a device.',
      access: scoped('device', 'deviceId', 'viewer'),
      answer: { status: 200, body: z.object({ items: z.array(componentInstance) }), description: 'All of them.' },
      handle: async ({ params }) => ({ items: await hardware.instancesOf(params.deviceId) }),
    }),
  ]
}
