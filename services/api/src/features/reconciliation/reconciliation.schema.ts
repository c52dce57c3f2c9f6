import { z } from 'zod'
import { givenInstant, id, instant, pageQuery } from '../../http/shapes'
import { MAX_WINDOW_DAYS } from '../telemetry/telemetry.schema'

/** Shapes of the reconciliation: what came in, and what became of it. */

const counts = {
  received: z.int().meta({ description: 'Messages that a listener handed over, redeliveries included.' }),
  committed: z.int().meta({ description: 'Those with at least one value that was not there before.' }),
  duplicate: z.int().meta({ description: 'Those of which everything was there before.' }),
  deadLettered: z.int().meta({ description: 'Those that are dead letters and have not been replayed.' }),
  closes: z.boolean().meta({ description: 'received = committed + duplicate + deadLettered' }),
}

const reconciledHour = z
  .object({ deviceId: z.string(), hour: instant().meta({ description: 'Begin of the hour of receipt.' }), ...counts })
  .meta({ id: 'ReconciledHour' })

export type ReconciledHour = z.output<typeof reconciledHour>

const sequenceGap = z
  .object({
    deviceId: z.string(),
    first: z.int(),
    last: z.int(),
    missing: z.int().meta({ description: 'How many numbers that is.' }),
  })
  .meta({ id: 'SequenceGap', description: 'Sequence numbers that never came in, though higher ones did.' })

export type SequenceGap = z.output<typeof sequenceGap>

export const MAX_GAPS = 500

export const reconciliation = z
  .object({
    from: instant(),
    to: instant(),
    totals: z.object(counts).meta({ description: 'Of the whole window, not of the page.' }),
    items: z.array(reconciledHour).meta({ description: 'The newest hour first.' }),
    gaps: z.array(sequenceGap).meta({
      description: `At most ${MAX_GAPS}, the highest numbers first; on the first page only. Days of receipt (UTC) that the window touches; what came in later fills a gap. A step of more than 100,000 is a counter that began anew, and no gap.`,
    }),
    nextCursor: z.string().nullable().meta({ description: 'Give it as `cursor` for the next page; null: the end.' }),
  })
  .meta({ id: 'Reconciliation' })

export type Reconciliation = z.output<typeof reconciliation>

export const reconciliationQuery = pageQuery(200, 1_000).extend({
  from: givenInstant().optional().meta({ description: 'Inclusive, by the hour. Default: 24 h before `to`.' }),
  to: givenInstant()
    .optional()
    .meta({ description: `Exclusive. Default: now. At most ${MAX_WINDOW_DAYS} days after \`from\`.` }),
})

export type ReconciliationQuery = z.output<typeof reconciliationQuery>

export const reconciliationQueryOfAll = reconciliationQuery.extend({
  organizationId: id().optional().meta({ description: 'Only this organization.' }),
  deviceId: id().optional().meta({ description: 'Only this device.' }),
})

export const overBudgetDevices = z.object({
  items: z.array(
    z
      .object({
        deviceId: id(),
        name: z.string(),
        since: instant(),
        lastAt: instant().meta({ description: 'When the last message was refused.' }),
        refused: z.int().meta({ description: 'Messages that became dead letters (over_budget).' }),
      })
      .meta({ id: 'OverBudgetDevice' }),
  ),
})
