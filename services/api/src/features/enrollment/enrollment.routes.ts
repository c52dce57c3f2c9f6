import { defineRoute, type Route, scoped } from '../../http/route'
import { pageOf, pageQuery } from '../../http/shapes'
import { answerOf } from '../certificates/certificates.schema'
import {
  enrollment,
  enrollmentToken,
  madeEnrollmentToken,
  newEnrollment,
  newEnrollmentToken,
} from './enrollment.schema'
import type { EnrollmentService } from './enrollment.service'
import type { EnrollmentTokenService } from './enrollment-tokens.service'

export interface EnrollmentServices {
  readonly tokens: EnrollmentTokenService
  readonly enrollments: EnrollmentService
}

export function enrollmentRoutes({ tokens, enrollments }: EnrollmentServices): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/organizations/{organizationId}/enrollment-tokens',
      tag: 'enrollment',
      summary: 'Makes a token with which devices come in by themselves.',
      access: scoped('organization', 'organizationId', 'operator'),
      body: newEnrollmentToken,
      answer: { status: 201, body: madeEnrollmentToken, description: 'Made. The token is shown this once.' },
      problems: { blueprint_unknown: 'the organization has no such blueprint' },
      handle: ({ actor, organizationId, body }) => tokens.create(actor, organizationId, body),
    }),
    defineRoute({
      method: 'get',
      path: '/organizations/{organizationId}/enrollment-tokens',
      tag: 'enrollment',
      summary: 'The enrollment tokens of an organization, without the secret.',
      access: scoped('organization', 'organizationId', 'operator'),
      query: pageQuery(),
      answer: { status: 200, body: pageOf(enrollmentToken), description: 'A page, newest first.' },
      handle: ({ organizationId, query }) => tokens.list(organizationId, query),
    }),
    defineRoute({
      method: 'delete',
      path: '/organizations/{organizationId}/enrollment-tokens/{enrollmentTokenId}',
      tag: 'enrollment',
      summary: 'Revokes an enrollment token. Devices that came in with it stay.',
      access: scoped('organization', 'organizationId', 'operator'),
      answer: { status: 204, description: 'Revoked, now or before.' },
      handle: async ({ actor, organizationId, params }) => {
        await tokens.revoke(actor, organizationId, params.enrollmentTokenId)
        return undefined
      },
    }),
    defineRoute({
      method: 'post',
      path: '/enrollments',
      tag: 'enrollment',
      summary: 'A device comes in by itself: it gets its identity, its components and its first certificate.',
      description:
        'No login: the enrollment token is the right. Asked again with the same token, serial number and key, it gives the same answer.',
      access: 'public',
      body: newEnrollment,
      onUnreadable: (address, error) => enrollments.noteUnreadable(address, error),
      answer: { status: 201, body: enrollment, description: 'The device and its certificate.' },
      problems: {
        enrollment_refused: 'the token is unknown, used up, expired or revoked, or not for this serial number',
        'csr_*': 'the CSR breaks a rule; the code names it',
        too_many_attempts: 'wait for Retry-After seconds',
        too_busy: 'too many at once; wait for Retry-After seconds',
        pki_unavailable: 'Vault does not answer now; try again',
      },
      handle: async ({ body, address }) => {
        const { device, components, signed } = await enrollments.enroll(body, address)
        const { id: deviceId, organizationId, blueprintId, name } = device
        return {
          deviceId,
          organizationId,
          blueprintId,
          name,
          components: [...components],
          certificate: answerOf(signed),
        }
      },
    }),
  ]
}
