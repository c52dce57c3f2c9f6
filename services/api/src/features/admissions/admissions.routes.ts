import { defineRoute, type Route, scoped } from '../../http/route'
import { admissionPage, admissionQuery } from './admissions.schema'
import type { AdmissionService } from './admissions.service'

export const admissionRoutes = (service: Pick<AdmissionService, 'list'>): Route[] => [
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/admissions',
    tag: 'access',
    summary: 'Lists the connections of a device and what it, or a person to it, was refused, the newest first.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: admissionQuery,
    answer: { status: 200, body: admissionPage, description: 'A page of decisions.' },
    handle: ({ params, query }) => service.list({ deviceId: params.deviceId }, query),
  }),
  defineRoute({
    method: 'get',
    path: '/organizations/{organizationId}/admissions',
    tag: 'access',
    summary: 'Lists the same for all devices of an organization, the newest first.',
    access: scoped('organization', 'organizationId', 'owner'),
    query: admissionQuery,
    answer: { status: 200, body: admissionPage, description: 'A page of decisions.' },
    handle: ({ organizationId, query }) => service.list({ organizationId }, query),
  }),
]
