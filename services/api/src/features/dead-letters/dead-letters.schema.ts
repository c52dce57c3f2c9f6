import { z } from 'zod'
import { givenInstant, instant, pageOf, pageQuery } from '../../http/shapes'

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
  })
  .meta({ id: 'DeadLetter' })

export type DeadLetter = z.output<typeof deadLetter>

export const deadLetterPage = pageOf(deadLetter)

export const deadLetterQuery = pageQuery(50, 200).extend({
  reason: z.string().max(64).optional(),
  from: givenInstant().optional().meta({ description: 'Received at or after.' }),
  to: givenInstant().optional().meta({ description: 'Received before.' }),
})

export type DeadLetterQuery = z.output<typeof deadLetterQuery>
