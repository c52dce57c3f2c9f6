import { z } from 'zod'
import { givenInstant, id, instant, pageOf, pageQuery } from '../../http/shapes'

/** Shapes of the dead-letters room. */

export const deadLetter = z
  .object({
    id: z.string().meta({ example: '4711' }),
    deviceId: z.string(),
    topic: z.string(),
    receivedAt: instant(),
    reason: z.string().meta({ description: 'A stable word.', example: 'unknown_metric' }),
    detail: z.string().meta({ description: 'For a person.' }),
    payload: z.string().meta({ description: 'The bytes as they came, base64.' }),
    text: z.string().nullable().meta({ description: 'The payload as text, when it is UTF-8.' }),
    readable: z.boolean().meta({ description: 'A report could be read in it: it can be replayed.' }),
    replayedAt: instant().nullable(),
    replayResult: z.enum(['committed', 'duplicate']).nullable().meta({ description: 'What became of it then.' }),
  })
  .meta({ id: 'DeadLetter' })

export type DeadLetter = z.output<typeof deadLetter>

export const deadLetterPage = pageOf(deadLetter)

const filters = {
  reason: z.string().max(64).optional(),
  from: givenInstant().optional().meta({ description: 'Received at or after.' }),
  to: givenInstant().optional().meta({ description: 'Received before.' }),
}

const state = z
  .enum(['open', 'replayed', 'all'])
  .default('all')
  .meta({ description: 'open: not replayed. replayed: stored as telemetry since.' })

export const deadLetterQuery = pageQuery(50, 200).extend({ ...filters, state })

export type DeadLetterQuery = z.output<typeof deadLetterQuery>

export const deadLetterQueryOfOrganization = deadLetterQuery.extend({
  deviceId: z.string().max(128).optional().meta({ description: 'Only of this device.' }),
})

export const deadLetterQueryOfAll = deadLetterQueryOfOrganization.extend({
  organizationId: id().optional().meta({ description: 'Only of this organization.' }),
})

export const MAX_REPLAYS = 10_000

export const replayRequest = z.object({
  ...filters,
  limit: z.int().min(1).max(MAX_REPLAYS).default(1_000).meta({ description: 'Letters that are looked at.' }),
  cursor: z.string().max(1_024).optional().meta({ description: '`nextCursor` of the answer before.' }),
})

export type ReplayRequest = z.output<typeof replayRequest>

export const replayRequestOfOrganization = replayRequest.extend({
  deviceId: z.string().max(128).optional().meta({ description: 'Only of this device.' }),
})

const result = z.enum(['committed', 'duplicate'])

export const replayedLetter = z.object({ id: z.string(), result }).meta({ id: 'ReplayedLetter' })

export const replaySummary = z
  .object({
    looked: z.int().meta({ description: 'Open letters that were looked at, the oldest first.' }),
    committed: z.int(),
    duplicate: z.int().meta({ description: 'Everything in it was stored before.' }),
    refused: z.int().meta({ description: 'Their cause is not mended; they stay open.' }),
    unreadable: z.int().meta({ description: 'No report could be read in them; they stay open.' }),
    reasons: z.record(z.string(), z.int()).meta({ description: 'Those refused, by reason.' }),
    nextCursor: z.string().nullable().meta({ description: 'There may be more: give it as `cursor`.' }),
  })
  .meta({ id: 'ReplaySummary' })

export type ReplaySummary = z.output<typeof replaySummary>
