import { z } from 'zod'
import { id, instant, label, pageQuery } from '../../http/shapes'

const deviceState = z.enum(['active', 'disabled']).meta({ id: 'DeviceState' })

const serialNumber = label(128).meta({ description: "The maker's, unique in the organization." })

export const newDevice = z.object({
  name: label(),
  blueprintId: id(),
  serialNumber: serialNumber.optional(),
})

export const deviceChange = z.object({ name: label().optional(), serialNumber: serialNumber.nullable().optional() })

export const deviceQuery = pageQuery().extend({
  blueprintId: id().optional(),
  state: deviceState.optional(),
  online: z
    .enum(['true', 'false'])
    .transform((text) => text === 'true')
    .optional(),
  search: z.string().trim().min(1).max(128).optional().meta({ description: 'Part of the name or serial number.' }),
})

export const device = z
  .object({
    id: id(),
    organizationId: id(),
    blueprintId: id(),
    name: z.string(),
    serialNumber: z.string().nullable(),
    state: deviceState,
    online: z.boolean().meta({ description: 'What the device said last, or the broker in its name.' }),
    statusAt: instant().nullable(),
    lastSeenAt: instant().nullable().meta({ description: 'Last message of any kind.' }),
    createdAt: instant(),
    updatedAt: instant(),
  })
  .meta({ id: 'Device' })

export type NewDevice = z.output<typeof newDevice>
export type DeviceChange = z.output<typeof deviceChange>
export type DeviceQuery = z.output<typeof deviceQuery>
