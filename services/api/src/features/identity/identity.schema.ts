import { z } from 'zod'
import { id, instant, label } from '../../http/shapes'

export const role = z.enum(['viewer', 'operator', 'owner']).meta({ id: 'Role' })

export const email = z.string().trim().toLowerCase().max(254).pipe(z.email()).meta({ example: 'ada@example.org' })

/** Long before clever: 10 characters at least; the upper bound keeps hashing cheap. */
export const newPassword = z.string().min(10).max(256)

export const credentials = z.object({ email, password: z.string().min(1).max(256) })

export const user = z.object({ id: id(), email: z.string(), name: z.string().nullable() }).meta({ id: 'User' })

export const session = z
  .object({
    accessToken: z.string().meta({ description: 'JWT, good until expiresAt.' }),
    expiresAt: instant(),
    refreshToken: z.string().meta({ description: 'Good for one refresh within 30 days.' }),
    user,
  })
  .meta({ id: 'Session' })

export const organization = z
  .object({ id: id(), name: z.string(), telemetryRetentionDays: z.int(), createdAt: instant() })
  .meta({ id: 'Organization' })

export const ownOrganization = organization.extend({ role }).meta({ id: 'OwnOrganization' })

export const newOrganization = z.object({ name: label() })

export const organizationChange = z.object({
  name: label().optional(),
  telemetryRetentionDays: z.int().min(1).max(3_650).optional(),
})

export const member = z
  .object({ userId: id(), email: z.string(), name: z.string().nullable(), role })
  .meta({ id: 'Member' })

export const newMember = z.object({
  email,
  role,
  name: label().optional(),
  password: newPassword.optional().meta({ description: 'Only for a person without an account: it is made with it.' }),
})
