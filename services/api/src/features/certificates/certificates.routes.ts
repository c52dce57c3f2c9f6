import { defineRoute, type Route, scoped } from '../../http/route'
import { pageOf, pageQuery } from '../../http/shapes'
import { answerOf, certificate, issuedCertificate, newCertificate } from './certificates.schema'
import type { CertificateService } from './certificates.service'

export function certificateRoutes(certificates: CertificateService): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/devices/{deviceId}/certificates',
      tag: 'certificates',
      summary: 'Signs a CSR of a device. The private key stays on the device.',
      access: scoped('device', 'deviceId', 'operator'),
      body: newCertificate,
      answer: { status: 201, body: issuedCertificate, description: 'The certificate, good from now on.' },
      problems: {
        'csr_*': 'the CSR breaks a rule; the code names it',
        device_disabled: 'the device is switched off',
        too_many_certificates: 'the device has eight that are good',
        pki_unavailable: 'Vault does not answer now; try again',
      },
      handle: async ({ actor, params, body }) => answerOf(await certificates.issue(actor, params.deviceId, body.csr)),
    }),
    defineRoute({
      method: 'get',
      path: '/devices/{deviceId}/certificates',
      tag: 'certificates',
      summary: 'The certificates ever issued to a device.',
      access: scoped('device', 'deviceId', 'viewer'),
      query: pageQuery(),
      answer: { status: 200, body: pageOf(certificate), description: 'A page, newest first.' },
      handle: async ({ params, query }) => {
        const { items, nextCursor } = await certificates.list(params.deviceId, query)
        return { items: items.map((row) => ({ ...row, expiresAt: row.notAfter })), nextCursor }
      },
    }),
  ]
}
