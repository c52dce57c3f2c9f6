import { z } from 'zod'
import type { Revocation } from '../../generated/prisma/client'
import { defineRoute, type Route, scoped } from '../../http/route'
import { pageOf } from '../../http/shapes'
import { isEffective } from './revocations'
import { deletion, disabling, newRevocation, revocation, revocationAnswer, revocationQuery } from './revocations.schema'
import type { RevocationService } from './revocations.service'

const answer = {
  status: 200,
  body: revocation,
  description: 'It has taken effect: nothing of it gets in any more, and who was connected is cut off.',
  accepted: 'It is written down, and a step failed that is tried again until it is done; `steps` says which.',
} as const

const problems = { database_unavailable: 'nothing could be written down, and nothing was done' }

export function revocationRoutes(revocations: RevocationService): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/certificates/{serial}/revoke',
      tag: 'certificates',
      summary: 'Revokes a certificate and cuts the device off. With another good one it comes back.',
      access: scoped('device', 'deviceId', 'operator'),
      params: { serial: z.string().max(128) },
      body: newRevocation,
      answer,
      problems: { ...problems, certificate_not_found: 'the device has no certificate of this serial number' },
      handle: async ({ actor, params, body, setStatus }) =>
        answered(await revocations.revokeCertificate(actor, params.deviceId, params.serial, body.reason), setStatus),
    }),
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/disable',
      tag: 'devices',
      summary: 'Switches a device off: its certificates are revoked and it is cut off.',
      access: scoped('device', 'deviceId', 'operator'),
      body: disabling,
      answer,
      problems,
      handle: async ({ actor, params, body, setStatus }) =>
        answered(await revocations.disable(actor, params.deviceId, body), setStatus),
    }),
    defineRoute({
      method: 'delete',
      path: '/devices/{deviceId}',
      tag: 'devices',
      summary: 'Revokes the certificates of a device, cuts it off and removes it with its components and commands.',
      access: scoped('device', 'deviceId', 'owner'),
      query: deletion,
      answer,
      problems,
      handle: async ({ actor, params, query, setStatus }) =>
        answered(await revocations.delete(actor, params.deviceId, query.reason), setStatus),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/revocations',
      tag: 'certificates',
      summary: 'What was revoked, disabled and deleted in an organization, and how far each is.',
      access: scoped('organization', 'organizationId', 'viewer'),
      query: revocationQuery,
      answer: { status: 200, body: pageOf(revocation), description: 'A page, newest first.' },
      handle: async ({ organizationId, query }) => {
        const { items, nextCursor } = await revocations.list(organizationId, query)
        return { items: items.map(revocationAnswer), nextCursor }
      },
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/revocations/{revocationId}',
      tag: 'certificates',
      summary: 'One revocation and its steps.',
      access: scoped('organization', 'organizationId', 'viewer'),
      answer: { status: 200, body: revocation, description: 'The revocation.' },
      handle: async ({ organizationId, params }) =>
        revocationAnswer(await revocations.get(organizationId, params.revocationId)),
    }),
  ]
}

function answered(plan: Revocation, setStatus: (status: 202) => void) {
  if (!isEffective(plan)) setStatus(202)
  return revocationAnswer(plan)
}
