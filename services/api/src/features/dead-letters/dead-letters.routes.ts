import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import { deadLetter, deadLetterPage, deadLetterQuery } from './dead-letters.schema'
import type { DeadLetterService } from './dead-letters.service'

export const deadLetterRoutes = (service: DeadLetterService): Route[] => [
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/dead-letters',
    tag: 'dead letters',
    summary: 'Lists the messages of a device that were not stored as telemetry, the newest first.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: deadLetterQuery,
    answer: { status: 200, body: deadLetterPage, description: 'A page of dead letters.' },
    handle: ({ params, query }) => service.list(params.deviceId, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/dead-letters/{deadLetterId}',
    tag: 'dead letters',
    summary: 'Reads one dead letter.',
    access: scoped('device', 'deviceId', 'viewer'),
    params: { deadLetterId: z.string().regex(/^\d{1,18}$/) },
    answer: { status: 200, body: deadLetter, description: 'The dead letter.' },
    problems: { dead_letter_not_found: 'The device has no such dead letter.' },
    handle: ({ params }) => service.get(params.deviceId, params.deadLetterId),
  }),
]
