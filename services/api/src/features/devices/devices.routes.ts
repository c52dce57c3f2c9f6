import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import { pageOf } from '../../http/shapes'
import { device, deviceChange, deviceQuery, newDevice } from './devices.schema'
import { type DeviceService, versionOf } from './devices.service'

export function deviceRoutes(devices: DeviceService): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/organizations/{organizationId}/devices',
      tag: 'devices',
      summary: 'Makes a device.',
      access: scoped('organization', 'organizationId', 'operator'),
      body: newDevice,
      answer: { status: 201, body: device, description: 'Made. Next: its components, then its certificate.' },
      problems: {
        blueprint_unknown: 'the organization has no such blueprint',
        device_exists: 'the name or serial number is taken',
      },
      handle: ({ actor, organizationId, body }) => devices.create(actor, organizationId, body),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/devices',
      tag: 'devices',
      summary: 'The devices of an organization.',
      access: scoped('organization', 'organizationId', 'viewer'),
      query: deviceQuery,
      answer: { status: 200, body: pageOf(device), description: 'A page, oldest first.' },
      handle: ({ organizationId, query }) => devices.list(organizationId, query),
    }),
    defineRoute({
      method: 'get',
      path: '/devices/{deviceId}',
      tag: 'devices',
      summary: 'One device. Its ETag goes into If-Match of a change.',
      access: scoped('device', 'deviceId', 'viewer'),
      answer: { status: 200, body: device, description: 'The device.' },
      handle: async ({ params, setHeader }) => {
        const found = await devices.get(params.deviceId)
        setHeader('etag', versionOf(found))
        return found
      },
    }),
    defineRoute({
      method: 'patch',
      path: '/devices/{deviceId}',
      tag: 'devices',
      summary: 'Renames a device or sets its serial number.',
      access: scoped('device', 'deviceId', 'operator'),
      headers: z.object({
        'if-match': z.string().optional().meta({ description: 'ETag of the device as it was read.' }),
      }),
      body: deviceChange,
      answer: { status: 200, body: device, description: 'The device as it is now.' },
      problems: {
        device_changed: 'If-Match was given and somebody else was faster',
        device_exists: 'the name or serial number is taken',
      },
      handle: async ({ actor, params, body, headers, setHeader }) => {
        const changed = await devices.change(actor, params.deviceId, body, headers['if-match'])
        setHeader('etag', versionOf(changed))
        return changed
      },
    }),
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/enable',
      tag: 'devices',
      summary: 'Switches a device on again. Its revoked certificates stay revoked: it needs a new one then.',
      access: scoped('device', 'deviceId', 'operator'),
      answer: { status: 200, body: device, description: 'The device as it is now.' },
      problems: { device_being_disabled: 'a revocation of it has only begun' },
      handle: ({ actor, params }) => devices.enable(actor, params.deviceId),
    }),
  ]
}
