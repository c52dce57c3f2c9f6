import { z } from 'zod'
import { givenInstant, instant, pageOf } from '../../http/shapes'

/** Shapes of the telemetry room. */

export const sample = z
  .object({
    component: z.string().meta({ description: 'Name of the component instance.', example: 'dht22-1' }),
    capturedAt: instant(),
    metrics: z
      .record(z.string(), z.union([z.number(), z.boolean(), z.string()]))
      .meta({ example: { temperature: 25.5, heater_on: true } }),
  })
  .meta({ id: 'Sample' })

export type Sample = z.output<typeof sample>

export const samplePage = pageOf(sample)
export const latestSamples = z.object({ items: z.array(sample) })

export const MAX_WINDOW_DAYS = 31

export const telemetryQuery = z.object({
  component: z.string().min(1).max(64).optional().meta({ description: 'Only this component instance.' }),
  from: givenInstant().optional().meta({ description: 'Inclusive. Default: 24 h before `to`.' }),
  to: givenInstant()
    .optional()
    .meta({ description: `Exclusive. Default: now. At most ${MAX_WINDOW_DAYS} days after \`from\`.` }),
  order: z.enum(['asc', 'desc']).optional().meta({ description: 'By capturedAt. Default: desc, the newest first.' }),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
  cursor: z.string().max(1_024).optional().meta({
    description:
      '`nextCursor` of the page before. It carries component, from, to and order: leave them out, or as they were.',
  }),
})

export type TelemetryQuery = z.output<typeof telemetryQuery>
