import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import { instant, pageOf, pageQuery } from '../../http/shapes'
import type { AuditService } from './audit.service'

export function auditRoutes(audit: AuditService): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/audit',
      tag: 'audit',
      summary: 'Who did what in an organization, newest first.',
      access: scoped('organization', 'organizationId', 'owner'),
      query: pageQuery(),
      answer: { status: 200, body: pageOf(entry), description: 'A page of the audit.' },
      handle: ({ organizationId, query }) => audit.list(organizationId, query),
    }),
  ]
}

const entry = z
  .object({
    id: z.string(),
    occurredAt: instant(),
    actorKind: z.string().meta({ example: 'user' }),
    actorId: z.string().nullable(),
    action: z.string().meta({ example: 'device.created' }),
    subjectKind: z.string(),
    subjectId: z.string(),
    detail: z.unknown(),
    requestId: z.string().nullable(),
    address: z.string().nullable(),
  })
  .meta({ id: 'AuditEntry' })
