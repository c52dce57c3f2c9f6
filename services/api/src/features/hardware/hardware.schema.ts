import { z } from 'zod'
import { id, instant, label } from '../../http/shapes'

const metricKind = z.enum(['number', 'boolean', 'text']).meta({ id: 'MetricKind' })

/** As reports name it: what goes into JSON keys, SenML names and topics without quoting. */
const technicalName = z
  .string()
  .regex(
    /^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$/,
    'must be 1 to 64 characters of A-Z a-z 0-9 _ . : -, the first a letter, digit or _',
  )
  // A map in JavaScript takes it for something else: no report could ever name it (see the listener's report rules).
  .refine((name) => name !== '__proto__', 'must not be __proto__')

export const newMetric = z
  .object({
    name: technicalName.meta({ example: 'temperature' }),
    kind: metricKind,
    unit: label(32).optional().meta({ example: 'Cel' }),
    minimum: z.number().optional(),
    maximum: z.number().optional(),
  })
  .refine((metric) => metric.kind === 'number' || (metric.minimum === undefined && metric.maximum === undefined), {
    message: 'only numbers have limits',
    path: ['minimum'],
  })
  .refine(
    (metric) => metric.minimum === undefined || metric.maximum === undefined || metric.minimum <= metric.maximum,
    {
      message: 'must not be below the minimum',
      path: ['maximum'],
    },
  )

export const newSupportedComponent = z.object({
  name: technicalName.meta({ example: 'dht22' }),
  description: z.string().max(1_000).optional(),
  metrics: z
    .array(newMetric)
    .min(1)
    .max(64)
    .refine((metrics) => new Set(metrics.map((metric) => metric.name)).size === metrics.length, 'names must differ'),
})

export const newBlueprint = z.object({
  name: label(),
  description: z.string().max(1_000).optional(),
  wantsReceipts: z.boolean().default(true).meta({ description: 'Devices of it get receipts and errors over MQTT.' }),
})

export const blueprintChange = z.object({
  name: label().optional(),
  description: z.string().max(1_000).nullable().optional(),
  wantsReceipts: z.boolean().optional(),
})

export const metric = z
  .object({
    id: id(),
    name: z.string(),
    kind: metricKind,
    unit: z.string().nullable(),
    minimum: z.number().nullable(),
    maximum: z.number().nullable(),
  })
  .meta({ id: 'Metric' })

export const supportedComponent = z
  .object({ id: id(), name: z.string(), description: z.string().nullable(), metrics: z.array(metric) })
  .meta({ id: 'SupportedComponent' })

export const blueprint = z
  .object({
    id: id(),
    organizationId: id(),
    name: z.string(),
    description: z.string().nullable(),
    wantsReceipts: z.boolean(),
    createdAt: instant(),
  })
  .meta({ id: 'Blueprint' })

export const wholeBlueprint = blueprint
  .extend({ components: z.array(supportedComponent) })
  .meta({ id: 'BlueprintWithComponents' })

export const newComponentInstance = z.object({
  name: technicalName.meta({ example: 'dht22-1', description: 'The name the device uses in its reports.' }),
  supportedComponentId: id(),
})

export const componentInstance = z
  .object({ id: z.int(), deviceId: id(), name: z.string(), supportedComponentId: id(), createdAt: instant() })
  .meta({ id: 'ComponentInstance' })

export type NewBlueprint = z.output<typeof newBlueprint>
export type BlueprintChange = z.output<typeof blueprintChange>
export type NewSupportedComponent = z.output<typeof newSupportedComponent>
export type NewComponentInstance = z.output<typeof newComponentInstance>
