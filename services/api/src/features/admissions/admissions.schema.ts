import { z } from 'zod'
import { givenInstant, instant, pageOf, pageQuery } from '../../http/shapes'

/** Shapes of the admissions room. */

export const admission = z
  .object({
    id: z.string().meta({ example: '4711' }),
    at: instant().meta({ description: 'The first of `count` that were alike.' }),
    count: z.number().int(),
    action: z.enum(['connect', 'publish', 'subscribe']),
    allowed: z.boolean(),
    reason: z.string().meta({ description: 'A word that stays the same.', example: 'certificate_revoked' }),
    rule: z.string().nullable().meta({ description: 'The rule that allowed it, or came nearest.' }),
    className: z.string().nullable().meta({ example: 'device' }),
    subjectId: z.string().nullable().meta({ description: 'Who it was, as the certificate or token shows it.' }),
    clientId: z.string().nullable().meta({ description: 'The MQTT client id, which anybody may choose.' }),
    certificateSerial: z.string().nullable(),
    peerAddress: z.string().nullable(),
    zone: z.string().nullable().meta({ example: 'devices' }),
    topic: z.string().nullable(),
    deviceId: z.string().nullable(),
  })
  .meta({ id: 'Admission' })

export const admissionPage = pageOf(admission)

export const admissionQuery = pageQuery(50, 200).extend({
  result: z.enum(['allow', 'deny']).optional(),
  reason: z.string().max(64).optional(),
  from: givenInstant().optional().meta({ description: 'At or after.' }),
  to: givenInstant().optional().meta({ description: 'Before.' }),
})

export type AdmissionQuery = z.output<typeof admissionQuery>
