import { z } from 'zod'
import { givenInstant, instant, pageOf } from '../../http/shapes'

/** Shapes of the roll-ups. */

export const rollup = z
  .object({
    component: z.string(),
    metric: z.string(),
    bucket: instant().meta({ description: 'Begin of the minute or hour, UTC.' }),
    count: z.int(),
    minimum: z.number(),
    maximum: z.number(),
    sum: z.number(),
    last: z.number().meta({ description: 'The value with the latest capturedAt.' }),
  })
  .meta({ id: 'Rollup', description: 'Numbers; booleans count as 0 and 1, texts are left out.' })

export type Rollup = z.output<typeof rollup>

export const rollupPage = pageOf(rollup)

export const MAX_MINUTES_DAYS = 31
export const MAX_HOURS_DAYS = 400

export const rollupQuery = z.object({
  resolution: z.enum(['1m', '1h']),
  component: z.string().min(1).max(64).optional().meta({ description: 'Only this component instance.' }),
  metric: z.string().min(1).max(64).optional().meta({ description: 'Only this metric.' }),
  from: givenInstant().optional().meta({ description: 'Inclusive. Default: 24 h (1m) or 31 days (1h) before `to`.' }),
  to: givenInstant()
    .optional()
    .meta({
      description: `Exclusive. Default: now. At most ${MAX_MINUTES_DAYS} days (1m) or ${MAX_HOURS_DAYS} days (1h) after \`from\`.`,
    }),
  limit: z.coerce.number().int().min(1).max(5_000).default(500),
  cursor: z.string().max(1_024).optional().meta({ description: '`nextCursor` of the page before.' }),
})

export type RollupQuery = z.output<typeof rollupQuery>
