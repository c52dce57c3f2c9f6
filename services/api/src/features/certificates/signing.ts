import { DomainError, type Logger } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import type { PrismaTransaction } from '../../database'
import type { CertificateStore } from './certificates.store'
import type { CheckedCsr } from './csr'
import type { Pki, SignedCertificate } from './pki'

/**
 * Signs and writes down, both or neither: a certificate leaves the house when the transaction that says whose it is has
 * been committed. If that fails it is revoked, so there is none that nobody knows of.
 *
 *   CSR ──Vault──▶ SIGNED ──`write` committed──▶ handed out
 *                    └────────failed───────────▶ revoked
 */
export class CertificateSigning {
  constructor(
    private readonly store: Pick<CertificateStore, 'transaction' | 'insert'>,
    private readonly pki: Pki,
    private readonly logger: Logger,
  ) {}

  /**
   * @param write stores the certificate with its owner; it runs in the transaction and looks again at everything that may
   *  have changed while Vault was signing
   * @throws what `write` throws, and the errors of Pki
   */
  async sign<T>(
    csr: CheckedCsr,
    deviceId: string,
    write: (tx: PrismaTransaction, signed: SignedCertificate) => Promise<T>,
  ): Promise<{ readonly signed: SignedCertificate; readonly written: T }> {
    const signed = await this.order(csr, deviceId)
    try {
      const written = await this.store.transaction((tx) => write(tx, signed))
      return { signed, written }
    } catch (error) {
      await this.withdraw(signed.serial, error)
      throw error
    }
  }

  /** Writes down whose certificate it is, in a transaction of another room. */
  record(tx: PrismaTransaction, deviceId: string, signed: SignedCertificate): Promise<void> {
    return this.store.insert(tx, deviceId, signed)
  }

  private async order(csr: CheckedCsr, deviceId: string): Promise<SignedCertificate> {
    try {
      return await this.pki.signDevice(csr, deviceCommonName(deviceId))
    } catch (error) {
      if (error instanceof DomainError && error.code === 'pki_answer_wrong') {
        this.logger.error('Vault made something else than the certificate that was ordered', {
          deviceId,
          error: error.cause,
        })
      }
      throw error
    }
  }

  /** Revokes what could not be written down. A commit whose answer was lost may stand: then a revoked certificate has
   *  a row, which harms nobody, because nobody ever got it. */
  private async withdraw(serial: string, reason: unknown): Promise<void> {
    try {
      await this.pki.revoke(serial)
      this.logger.warn('a certificate could not be written down and was revoked', { serial, error: reason })
    } catch (error) {
      this.logger.error('a certificate has no owner and could not be revoked', { serial, error, reason })
    }
  }
}
