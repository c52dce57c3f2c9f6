import { z } from 'zod'
import { defineRoute, type Route } from '../../http/route'
import { id, instant } from '../../http/shapes'
import type { FleetService } from './fleet.service'

const finding = z
  .object({
    code: z.string().meta({ description: 'Stable.', example: 'certificate_ends_soon' }),
    severity: z.enum(['info', 'warning', 'critical']),
    organizationId: id().nullable().meta({ description: 'null: it is about the whole house.' }),
    subject: z.object({
      kind: z.enum(['device', 'certificate', 'ca', 'revocation']),
      id: z.string(),
      name: z.string().nullable(),
    }),
    cause: z.string().meta({ description: 'What is seen, and what it comes from.' }),
    remedy: z.string().meta({ description: 'What to do.' }),
  })
  .meta({ id: 'Finding' })

export function fleetRoutes(fleet: FleetService): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/fleet/findings',
      tag: 'fleet',
      summary: 'What is wrong or soon will be in the organizations one is a member of, each with cause and remedy.',
      access: 'signed-in',
      query: z.object({ organizationId: id().optional() }),
      answer: {
        status: 200,
        body: z.object({
          checkedAt: instant(),
          items: z.array(finding),
          skipped: z
            .array(z.object({ check: z.string(), why: z.string() }))
            .meta({ description: 'What could not be looked at now. At most 200 findings of a kind are shown.' }),
        }),
        description: 'The findings, the worst first.',
      },
      handle: async ({ actor, query }) => {
        const { checkedAt, items, skipped } = await fleet.diagnose(actor.id, query.organizationId)
        return { checkedAt, items: [...items], skipped: [...skipped] }
      },
    }),
  ]
}
