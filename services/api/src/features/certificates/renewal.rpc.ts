import { DomainError, unaryHandler } from '@ares/chassis'
import type { DeviceServiceServer } from '@ares/proto/devices/v1/devices'
import type { RenewalService } from './renewal.service'

/** DeviceService.RenewCertificate over gRPC, for the listener. Whatever the device must hear is an answer. */
export const renewalRpc = (renewals: RenewalService): Pick<DeviceServiceServer, 'renewCertificate'> => ({
  renewCertificate: unaryHandler(async ({ deviceId, csr }) => {
    try {
      const signed = await renewals.renew({ kind: 'device', id: deviceId }, deviceId, csr)
      const { serial, certificatePem, chainPem, notAfter } = signed
      return {
        result: {
          $case: 'certificate',
          value: { serial, certificate: certificatePem, chain: [...chainPem], expiresAt: notAfter },
        },
      }
    } catch (error) {
      if (!(error instanceof DomainError)) throw error
      const { retryAfterSeconds } = error.details
      return {
        result: {
          $case: 'refused',
          value: {
            code: error.code,
            detail: error.message,
            retryAfterSeconds: typeof retryAfterSeconds === 'number' ? retryAfterSeconds : 0,
          },
        },
      }
    }
  }),
})
