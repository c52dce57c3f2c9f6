import { DomainError } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import { z } from 'zod'
import type { PrismaTransaction } from '../../database'
import type { Certificate } from '../../generated/prisma/client'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { Actor, AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { CertificateOwner, CertificateStore } from './certificates.store'
import { checkCsr } from './csr'
import type { SignedCertificate } from './pki'
import type { CertificateSigning } from './signing'

/** As many as the directory carries for a device. */
export const MOST_CERTIFICATES = 8

/** Certificates of devices, from the request to the row that says whose they are. */
export class CertificateService {
  constructor(
    private readonly store: CertificateStore,
    private readonly signing: CertificateSigning,
    private readonly audit: AuditService,
  ) {}

  /**
   * Signs a device's CSR. Serial, owner, audit and directory change are committed before the certificate leaves the
   * house; if that fails it is revoked: there is no certificate that nobody knows of.
   * @throws CsrRejected, DomainError `device_not_found`, `device_disabled`, `too_many_certificates`, and those of Pki
   */
  async issue(actor: Actor, deviceId: string, csrPem: string): Promise<SignedCertificate> {
    requireIssuable(await this.store.owner(deviceId))
    const csr = await checkCsr(csrPem, deviceCommonName(deviceId))
    const { signed } = await this.signing.sign(csr, deviceId, (tx, made) => this.bind(tx, actor, deviceId, made))
    return signed
  }

  async list(deviceId: string, page: { limit: number; cursor?: string }): Promise<Page<Certificate>> {
    const after = decodeCursor(page.cursor, z.string().max(128))
    const rows = await this.store.list(deviceId, page.limit + 1, after)
    return pageFrom(rows, page.limit, (row) => row.serial)
  }

  private async bind(tx: PrismaTransaction, actor: Actor, deviceId: string, signed: SignedCertificate): Promise<void> {
    // It may have been disabled while Vault was signing.
    const device = requireIssuable(await this.store.lockOwner(tx, deviceId))
    await this.store.insert(tx, deviceId, signed, { requestedBy: actor.kind === 'user' ? actor.id : null })
    await this.audit.record(tx, {
      actor,
      action: 'certificate.issued',
      subject: { kind: 'device', id: deviceId },
      organizationId: device.organizationId,
      detail: { serial: signed.serial, expiresAt: signed.notAfter.toISOString() },
    })
    await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
  }
}

export function requireIssuable(device: CertificateOwner | undefined): CertificateOwner {
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
