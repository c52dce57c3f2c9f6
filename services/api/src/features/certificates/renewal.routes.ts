import { z } from 'zod'
import { defineRoute, type Route } from '../../http/route'
import type { AttemptLimit } from './attempt-limit'
import { answerOf, issuedCertificate, newCertificate } from './certificates.schema'
import type { RenewalService } from './renewal.service'

export function renewalRoutes(renewals: RenewalService, limit: AttemptLimit): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/certificates/renewals',
      tag: 'certificates',
      summary: 'Renews the certificate of a device that proves it has the key of the one it has.',
      description:
        'For a device that cannot use MQTT now. No token: `signature` is made with the key of the certificate `serial`.',
      access: 'public',
      body: newCertificate.extend({
        serial: z.string().min(1).max(128).meta({ description: 'Of the certificate that the device has.' }),
        signature: z.string().min(1).max(2_048).meta({
          description:
            'Base64. Over the text of `csr`, byte for byte: ECDSA (DER) or RSA (PKCS #1) with SHA-256, or Ed25519.',
        }),
      }),
      answer: {
        status: 201,
        body: issuedCertificate,
        description: 'The new certificate. The old one is good until then.',
      },
      problems: {
        renewal_refused: 'device, serial number and signature do not fit a certificate that is good',
        renewal_too_early: 'half of its life is not over; wait for Retry-After',
        renewal_in_progress: 'another new one was signed just now; wait for Retry-After',
        'csr_*': 'the CSR breaks a rule; the code names it',
        too_many_attempts: 'wait for Retry-After seconds',
        pki_unavailable: 'Vault does not answer now; try again',
      },
      handle: async ({ params, body, address }) =>
        limit.attempt(address, async () =>
          answerOf(await renewals.renewWithProof({ deviceId: params.deviceId, ...body }, address)),
        ),
    }),
  ]
}
