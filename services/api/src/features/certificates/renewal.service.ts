import { type KeyObject, verify, X509Certificate } from 'node:crypto'
import { DomainError, type Logger } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import type { Certificate } from '../../generated/prisma/client'
import type { Actor, AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import { MOST_CERTIFICATES } from './certificates.service'
import type { CertificateOwner, CertificateStore } from './certificates.store'
import { type CheckedCsr, checkCsr } from './csr'
import { handedOut, publicKeyHashOf } from './kept-certificate'
import type { SignedCertificate } from './pki'
import { planRenewal, RENEWAL_RULES, type RenewalPlan, type RenewalRules } from './renewal.plan'
import type { RenewalStore } from './renewal.store'
import type { CertificateSigning } from './signing'

/** A device that shows, without MQTT, that it holds the key of its certificate. */
export interface RenewalProof {
  readonly deviceId: string
  /** Of the certificate it has. */
  readonly serial: string
  readonly csr: string
  /** Of the CSR's text, byte for byte, by the certificate's key; base64. */
  readonly signature: string
}

/** New certificates for devices that have one; see renewal.plan.ts for what is granted when. */
export class RenewalService {
  constructor(
    private readonly certificates: CertificateStore,
    private readonly store: RenewalStore,
    private readonly signing: CertificateSigning,
    private readonly audit: AuditService,
    private readonly logger: Logger,
    private readonly rules: RenewalRules = RENEWAL_RULES,
  ) {}

  /**
   * For a device whose identity somebody has checked already (the broker, or `renewWithProof`).
   * @throws CsrRejected, those of planRenewal, DomainError `device_not_found`, `device_disabled`,
   *  `too_many_certificates`, and those of Pki
   */
  async renew(actor: Actor, deviceId: string, csrPem: string): Promise<SignedCertificate> {
    requireActive(await this.certificates.owner(deviceId))
    const csr = await checkCsr(csrPem, deviceCommonName(deviceId))
    const good = await this.store.good(deviceId)
    const plan = this.plan(good, csr)
    if (plan.kind === 'repeat') return again(good, plan.serial)
    try {
      return await this.sign(actor, deviceId, csr)
    } catch (error) {
      if (!(error instanceof Repeated)) throw error
      return again(await this.store.good(deviceId), error.serial)
    }
  }

  /** @throws DomainError `renewal_refused` for whatever is wrong with the proof, and what `renew` throws */
  async renewWithProof(
    { deviceId, serial, csr, signature }: RenewalProof,
    address: string,
  ): Promise<SignedCertificate> {
    const certificate = await this.store.usable(deviceId, serial)
    if (!certificate?.pem || !isSignedBy(new X509Certificate(certificate.pem).publicKey, csr, signature)) {
      this.logger.warn('a renewal without a good proof was refused', { deviceId, serial, address })
      throw new DomainError(
        'forbidden',
        'renewal_refused',
        'Device, serial number and signature do not fit a certificate that is good.',
      )
    }
    return this.renew({ kind: 'device', id: deviceId, address }, deviceId, csr)
  }

  private async sign(actor: Actor, deviceId: string, csr: CheckedCsr): Promise<SignedCertificate> {
    const { signed } = await this.signing.sign(csr, deviceId, async (tx, made) => {
      // While Vault was signing, another request of the device may have come through.
      const device = requireActive(await this.certificates.lockOwner(tx, deviceId))
      const plan = this.plan(await this.store.good(deviceId, tx), csr)
      if (plan.kind === 'repeat') throw new Repeated(plan.serial)
      const { supersedes, unused } = plan
      if (device.certificates - unused.length >= MOST_CERTIFICATES) {
        throw new DomainError(
          'conflict',
          'too_many_certificates',
          'The device has too many certificates that are good.',
        )
      }
      await this.store.retire(tx, unused)
      await this.certificates.insert(tx, deviceId, made, { supersedes })
      await this.audit.record(tx, {
        actor,
        action: 'certificate.renewed',
        subject: { kind: 'device', id: deviceId },
        organizationId: device.organizationId,
        detail: {
          serial: made.serial,
          supersedes,
          retired: unused.join(' '),
          expiresAt: made.notAfter.toISOString(),
        },
      })
      await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
    })
    return signed
  }

  private plan(good: readonly Certificate[], csr: CheckedCsr): RenewalPlan {
    return planRenewal(good, publicKeyHashOf(csr.publicKey), new Date(), this.rules)
  }
}

/** Another request with the same key was faster: its answer is the answer. */
class Repeated extends Error {
  constructor(readonly serial: string) {
    super(`there is a certificate for this key already: ${serial}`)
  }
}

function again(good: readonly Certificate[], serial: string): SignedCertificate {
  const row = good.find((one) => one.serial === serial)
  const signed = row && handedOut(row)
  if (signed) return signed
  throw new DomainError('conflict', 'renewal_in_progress', 'Another request was faster. Ask again.', {
    retryAfterSeconds: 1,
  })
}

function requireActive(device: CertificateOwner | undefined): CertificateOwner {
  if (!device) throw new DomainError('not_found', 'device_not_found', 'There is no such device.')
  if (device.state === 'active') return device
  throw new DomainError('conflict', 'device_disabled', 'The device is disabled: it gets no certificate.')
}

/** ECDSA (DER) and RSA (PKCS #1) with SHA-256, Ed25519. */
function isSignedBy(key: KeyObject, text: string, signature: string): boolean {
  const digest = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  try {
    return verify(digest, Buffer.from(text), key, Buffer.from(signature, 'base64'))
  } catch {
    return false
  }
}
