import { z } from 'zod'
import type { Revocation } from '../../generated/prisma/client'
import { id, instant, label, pageQuery } from '../../http/shapes'
import { doneAt, isEffective, STEPS } from './revocations'

const reason = label(256).meta({ description: 'Kept with it, and in the audit.' })

export const newRevocation = z.object({ reason: reason.optional() }).prefault({})

export const disabling = z
  .object({
    reason: reason.optional(),
    keepCertificates: z.boolean().default(false).meta({
      description: 'Certificates are not revoked: the device comes back with them when it is enabled again.',
    }),
  })
  .prefault({})

export const deletion = z.object({ reason: reason.optional() })

export const revocationQuery = pageQuery().extend({
  unfinished: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
})

export const revocation = z
  .object({
    id: id(),
    kind: z.enum(['certificate', 'disable', 'delete']),
    deviceId: id(),
    serials: z.array(z.string()),
    reason: z.string().nullable(),
    state: z.enum(['unfinished', 'effective', 'finished']).meta({
      description: 'effective: everything is done but the second kick, which follows after a second.',
    }),
    steps: z.array(
      z.object({
        step: z.enum(STEPS),
        doneAt: instant().nullable().meta({ description: 'null: not done yet' }),
        error: z.string().optional().meta({ description: 'Why it failed at the last try.' }),
      }),
    ),
    failures: z.int().meta({ description: 'Tries in which a step failed.' }),
    createdAt: instant(),
    finishedAt: instant().nullable(),
    nextTryAt: instant().nullable().meta({ description: 'When Ares goes on by itself; null: there is nothing left.' }),
  })
  .meta({ id: 'Revocation' })

export function revocationAnswer(plan: Revocation): z.input<typeof revocation> {
  const { failedStep, lastError } = plan
  return {
    ...plan,
    state: plan.finishedAt ? 'finished' : isEffective(plan) ? 'effective' : 'unfinished',
    steps: STEPS.map((step) => ({
      step,
      doneAt: doneAt(plan, step),
      ...(step === failedStep && lastError !== null ? { error: lastError } : {}),
    })),
    nextTryAt: plan.finishedAt ? null : plan.nextTryAt,
  }
}
