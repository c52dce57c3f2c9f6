import { DomainError, type Logger } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import { z } from 'zod'
import type { Certificate } from '../../generated/prisma/client'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { Actor, AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { CertificateOwner, CertificateStore } from './certificates.store'
import { checkCsr } from './csr'
import type { Pki, SignedCertificate } from './pki'

/** As many as the directory carries for a device. */
const MOST_CERTIFICATES = 8

/** Certificates of devices, from the request to the row that says whose they are. */
export class CertificateService {
  constructor(
    private readonly store: CertificateStore,
    private readonly pki: Pki,
    private readonly audit: AuditService,
    private readonly logger: Logger,
  ) {}

  /**
   * Signs a device's CSR. Serial, owner, audit and directory change are committed before the certificate leaves the
   * house; if that fails it is revoked: there is no certificate that nobody knows of.
   * @throws CsrRejected, DomainError `device_not_found`, `device_disabled`, `too_many_certificates`, and those of Pki
   */
  async issue(actor: Actor, deviceId: string, csrPem: string): Promise<SignedCertificate> {
    requireIssuable(await this.store.owner(deviceId))
    const commonName = deviceCommonName(deviceId)
    const csr = await checkCsr(csrPem, commonName)
    const signed = await this.pki.signDevice(csr, commonName)
    try {
      await this.bind(actor, deviceId, signed)
    } catch (error) {
      await this.withdraw(signed.serial, error)
      throw error
    }
    return signed
  }

  async list(deviceId: string, page: { limit: number; cursor?: string }): Promise<Page<Certificate>> {
    const after = decodeCursor(page.cursor, z.string().max(128))
    const rows = await this.store.list(deviceId, page.limit + 1, after)
    return pageFrom(rows, page.limit, (row) => row.serial)
  }

  private async bind(actor: Actor, deviceId: string, signed: SignedCertificate): Promise<void> {
    await this.store.transaction(async (tx) => {
      // It may have been disabled while Vault was signing.
      const device = requireIssuable(await this.store.lockOwner(tx, deviceId))
      await this.store.insert(tx, deviceId, signed, actor.kind === 'user' ? actor.id : null)
      await this.audit.record(tx, {
        actor,
        action: 'certificate.issued',
        subject: { kind: 'device', id: deviceId },
        organizationId: device.organizationId,
        detail: { serial: signed.serial, expiresAt: signed.notAfter.toISOString() },
      })
      await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
    })
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

function requireIssuable(device: CertificateOwner | undefined): CertificateOwner {
  if (!device) throw new DomainError('not_found', 'device_not_found', 'There is no such device.')
  if (device.state !== 'active') {
    throw new DomainError('conflict', 'device_disabled', 'The device is disabled: it gets no certificate.')
  }
  if (device.certificates >= MOST_CERTIFICATES) {
    throw new DomainError(
      'conflict',
      'too_many_certificates',
      `The device has ${device.certificates} certificates that are good. Revoke those it does not use.`,
    )
  }
  return device
}
