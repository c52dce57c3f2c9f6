import { z } from 'zod'
import { id, instant, json, pageOf, pageQuery } from '../../http/shapes'

/** Shapes of the commands room. */

const MAX_ARGUMENTS_BYTES = 64 * 1_024

/** PostgreSQL's jsonb takes every character but NUL. */
export const isStorableJson = (value: unknown): boolean => !ESCAPED_NUL.test(JSON.stringify(value))

/** The escape itself, not a backslash that was escaped and then `u0000`. */
const ESCAPED_NUL = /(?<!\\)(?:\\\\)*\\u0000/

const argumentsObject = z
  .record(z.string(), json())
  .refine(
    (value) => Buffer.byteLength(JSON.stringify(value)) <= MAX_ARGUMENTS_BYTES,
    'must have at most 64 KiB as JSON',
  )
  .refine(isStorableJson, 'must not contain the NUL character')

export const newCommand = z
  .object({
    name: z
      .string()
      .regex(/^[a-z0-9_.-]{1,64}$/, 'must be 1 to 64 characters of a-z, 0-9, _ . -')
      .meta({ example: 'set_interval' }),
    arguments: argumentsObject.default({}).meta({ example: { seconds: 10 } }),
    expiresInSeconds: z
      .int()
      .min(1)
      .max(30 * 86_400)
      .default(300)
      .meta({ description: 'The device ignores the command after that.' }),
  })
  .meta({ id: 'NewCommand' })

export type NewCommand = z.output<typeof newCommand>

export const commandState = z.enum(['pending', 'published', 'progress', 'succeeded', 'failed', 'expired']).meta({
  description:
    'pending: not yet taken by the broker for the device; published: the broker has it; progress: the device is at it; then how it ended.',
})

export const command = z
  .object({
    id: id(),
    deviceId: id(),
    name: z.string(),
    arguments: z.record(z.string(), json()),
    state: commandState,
    result: json(),
    error: z.string().nullable(),
    requestedBy: id().nullable(),
    createdAt: instant(),
    expiresAt: instant(),
    publishedAt: instant().nullable(),
    respondedAt: instant().nullable(),
  })
  .meta({ id: 'Command' })

export type Command = z.output<typeof command>

export const commandPage = pageOf(command)

export const commandQuery = pageQuery(50, 200).extend({ state: commandState.optional() })

export type CommandQuery = z.output<typeof commandQuery>

export const commandHeaders = z.object({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,128}$/, 'must be 1 to 128 visible ASCII characters')
    .optional()
    .meta({ description: 'The same key brings the same command again, and no second one.' }),
})
