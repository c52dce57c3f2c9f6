import { z } from 'zod'
import { defineRoute, type Route, scoped } from '../../http/route'
import {
  deadLetter,
  deadLetterPage,
  deadLetterQuery,
  deadLetterQueryOfAll,
  deadLetterQueryOfOrganization,
  replayedLetter,
  replayRequest,
  replayRequestOfOrganization,
  replaySummary,
} from './dead-letters.schema'
import type { DeadLetterService } from './dead-letters.service'

const tag = 'dead letters'
const deadLetterId = z.string().regex(/^\d{1,18}$/)
const page = { status: 200, body: deadLetterPage, description: 'A page of dead letters.' } as const
const summary = { status: 200, body: replaySummary, description: 'What became of the letters.' } as const

export const deadLetterRoutes = (service: DeadLetterService): Route[] => [
  defineRoute({
    method: 'get',
    path: '/dead-letters',
    tag,
    summary: 'Lists the messages that were not stored as telemetry, of all organizations that you are a member of.',
    access: 'signed-in',
    query: deadLetterQueryOfAll,
    answer: page,
    handle: ({ actor, query }) => {
      const { deviceId, organizationId } = query
      return service.list({ memberId: actor.id, deviceId, organizationId }, query)
    },
  }),
  defineRoute({
    method: 'get',
    path: '/organizations/{organizationId}/dead-letters',
    tag,
    summary: 'Lists the messages of an organization that were not stored as telemetry, the newest first.',
    access: scoped('organization', 'organizationId', 'viewer'),
    query: deadLetterQueryOfOrganization,
    answer: page,
    handle: ({ organizationId, query }) => service.list({ organizationId, deviceId: query.deviceId }, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/dead-letters',
    tag,
    summary: 'Lists the messages of a device that were not stored as telemetry, the newest first.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: deadLetterQuery,
    answer: page,
    handle: ({ params: { deviceId }, query }) => service.list({ deviceId }, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/dead-letters/{deadLetterId}',
    tag,
    summary: 'Reads one dead letter.',
    access: scoped('device', 'deviceId', 'viewer'),
    params: { deadLetterId },
    answer: { status: 200, body: deadLetter, description: 'The dead letter.' },
    problems: { dead_letter_not_found: 'The device has no such dead letter.' },
    handle: ({ params }) => service.get(params.deviceId, params.deadLetterId),
  }),
  defineRoute({
    method: 'post',
    path: '/dead-letters/{deadLetterId}/replay',
    tag,
    summary: 'Stores a dead letter as telemetry, after its cause is mended.',
    description:
      'It is checked as if it came in now, except for the budget. Its counts move from deadLettered to committed or duplicate, in the hour it was received.',
    access: scoped('dead_letter', 'deadLetterId', 'operator'),
    params: { deadLetterId },
    answer: { status: 200, body: replayedLetter, description: 'It is stored.' },
    problems: {
      still_refused: 'Its cause is not mended.',
      already_replayed: 'It was replayed before.',
      not_readable: 'No report could be read in it.',
    },
    handle: ({ actor, organizationId, params }) => service.replay(actor, organizationId, params.deadLetterId),
  }),
  defineRoute({
    method: 'post',
    path: '/organizations/{organizationId}/dead-letters/replay',
    tag,
    summary: 'Stores the dead letters of an organization as telemetry, the oldest first.',
    access: scoped('organization', 'organizationId', 'operator'),
    body: replayRequestOfOrganization,
    answer: summary,
    handle: ({ actor, organizationId, body }) =>
      service.replayAll(actor, organizationId, { organizationId, deviceId: body.deviceId }, body),
  }),
  defineRoute({
    method: 'post',
    path: '/devices/{deviceId}/dead-letters/replay',
    tag,
    summary: 'Stores the dead letters of a device as telemetry, the oldest first.',
    access: scoped('device', 'deviceId', 'operator'),
    body: replayRequest,
    answer: summary,
    handle: ({ actor, organizationId, params: { deviceId }, body }) =>
      service.replayAll(actor, organizationId, { deviceId }, body),
  }),
]
