import { z } from 'zod'
import { id, instant } from '../../http/shapes'

/** Shapes of the access room. */

export const explainBody = z.strictObject({
  who: z
    .string()
    .trim()
    .toLowerCase()
    .max(320)
    .refine(
      (text) => whoOf(text) !== undefined,
      'must be the id of a device, an e-mail, or a certificate’s serial number',
    )
    .meta({
      description: 'The id of a device, the e-mail of a person, or the serial number of a certificate.',
      example: '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11',
    }),
  action: z.enum(['connect', 'publish', 'subscribe']),
  topic: z
    .string()
    .min(1)
    .max(65_535)
    .optional()
    .meta({ description: 'Topic, or filter of a subscription.', example: 'ares4/+/telemetry' }),
  qos: z.union([z.literal(0), z.literal(1), z.literal(2)]).default(1),
  retain: z.boolean().default(false),
})

export type ExplainBody = z.output<typeof explainBody>

const knownDevice = z.object({
  id: z.string(),
  organizationId: z.string(),
  state: z.enum(['active', 'disabled']),
  certificateSerials: z.array(z.string()),
})

export const explanation = z
  .object({
    decision: z.enum(['allow', 'deny']),
    reason: z.string().meta({ description: 'A word that stays the same.', example: 'role_too_low' }),
    rule: z.string().nullable().meta({
      description: 'The rule that allowed it, or came nearest.',
      example: 'device may publish ares4/{deviceId}/status',
    }),
    subject: z
      .object({ className: z.string(), id: z.string() })
      .nullable()
      .meta({ description: 'Who it is, as far as that was found out.' }),
    assumed: z.array(z.string()).meta({ description: 'What was taken to be so, because nobody really connects.' }),
    known: z.object({
      device: knownDevice.nullable(),
      certificate: z
        .object({ serial: z.string(), revoked: z.boolean(), notBefore: instant(), expiresAt: instant() })
        .nullable(),
      user: z
        .object({
          id: id(),
          email: z.string(),
          active: z.boolean(),
          memberships: z.array(z.object({ organizationId: z.string(), role: z.string() })),
        })
        .nullable(),
      topicDevice: knownDevice.nullable(),
      directoryVersion: z.string(),
      directoryAgeMs: z.number().int().meta({ description: 'Since api last told the authorizer that this is all.' }),
    }),
  })
  .meta({ id: 'Explanation' })

export type Explanation = z.input<typeof explanation>

/** What kind of name it is that somebody asks about; undefined: none of them. */
export function whoOf(
  text: string,
): { readonly kind: 'device' | 'user' | 'certificate'; readonly name: string } | undefined {
  if (UUID.test(text)) return { kind: 'device', name: text }
  if (EMAIL.test(text)) return { kind: 'user', name: text }
  if (SERIAL.test(text)) return { kind: 'certificate', name: text.replaceAll(':', '').match(/../g)?.join(':') ?? '' }
  return undefined
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const EMAIL = /^[^\s@]+@[^\s@]+$/

/** With or without colons. */
const SERIAL = /^(?:[0-9a-f]{2}:){0,31}[0-9a-f]{2}$|^(?:[0-9a-f]{2}){2,32}$/
