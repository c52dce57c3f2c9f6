import { DomainError, type Logger } from '@ares/chassis'
import { isUniqueViolation, type PrismaTransaction } from '../../database'
import type { Device, Enrollment, EnrollmentToken } from '../../generated/prisma/client'
import { problemOf } from '../../http/problem'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import type { AttemptLimit } from '../certificates/attempt-limit'
import { checkCsr } from '../certificates/csr'
import { handedOut, publicKeyHashOf } from '../certificates/kept-certificate'
import type { SignedCertificate } from '../certificates/pki'
import type { CertificateSigning } from '../certificates/signing'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { AttemptJournal } from './attempt-journal'
import type { NewEnrollment } from './enrollment.schema'
import type { EnrollmentStore } from './enrollment.store'
import { hashOf } from './enrollment-token'

export interface Enrolled {
  readonly device: Device
  readonly components: readonly string[]
  readonly signed: SignedCertificate
}

/**
 * Devices that come in by themselves, with a token of an organization. Device, components and certificate are one
 * transaction: there is no half device, and no certificate without an owner.
 *
 * Whoever asks with a token that does not let him in hears one answer, whatever the reason; the reason is in the audit of
 * the organization whose token it is. A device whose answer was lost asks again with the same token, serial number and
 * key and gets the same answer, as long as the token has not expired and was not revoked: the certificate is of no use to
 * whoever has not the key, and the signature of the CSR shows the key.
 *
 * Every attempt is in the audit, whatever became of it. What a token let in, or its organization is to be told of, is a
 * row at once; the rest, which anybody can cause, goes through the journal.
 */
export class EnrollmentService {
  constructor(
    private readonly store: EnrollmentStore,
    private readonly signing: CertificateSigning,
    private readonly audit: AuditService,
    private readonly journal: AttemptJournal,
    private readonly limit: AttemptLimit,
    private readonly logger: Logger,
  ) {}

  /** @throws CsrRejected, EnrollmentRefused, and DomainErrors of AttemptLimit and Pki */
  async enroll(request: NewEnrollment, address: string): Promise<Enrolled> {
    const attempt: Attempt = { serialNumber: request.serialNumber, address }
    try {
      return await this.limit.attempt(address, () => this.letIn(request, attempt))
    } catch (error) {
      await this.writeRefusal(reasonOf(error), attempt)
      throw error
    }
  }

  /** An attempt whose body was no request at all. */
  noteUnreadable(address: string, error: unknown): void {
    this.journal.note({ ...REFUSED, reason: reasonOf(error), address })
  }

  private async letIn(request: NewEnrollment, attempt: Attempt): Promise<Enrolled> {
    const { serialNumber, address } = attempt
    // First, and without a look at the token: what it says about a CSR it says to everybody.
    const csr = await checkCsr(request.csr, serialNumber)
    const publicKeyHash = publicKeyHashOf(csr.publicKey)
    const { token, enrolled } = await this.admit(request.token, publicKeyHash, attempt)
    if (enrolled) {
      const { organizationId, id } = enrolled.device
      const subject = { kind: 'device', id } as const
      const reason = 'asked_again'
      this.journal.note({
        action: 'device.enrollment_repeated',
        subject,
        organizationId,
        reason,
        address,
        serialNumber,
      })
      return enrolled
    }
    const deviceId = newId()
    const { signed, written } = await this.signing.sign(csr, deviceId, (tx, made) =>
      this.write(tx, { deviceId, serialNumber, publicKeyHash, tokenId: token.id, address }, made),
    )
    return { ...written, signed }
  }

  /** @returns the token, and what was answered the first time. @throws EnrollmentRefused */
  private async admit(
    token: string,
    publicKeyHash: string,
    attempt: Attempt,
  ): Promise<{ readonly token: EnrollmentToken; readonly enrolled?: Enrolled | undefined }> {
    const { serialNumber } = attempt
    const found = await this.store.token(hashOf(token), { serialNumber, publicKeyHash })
    attempt.token = found ?? undefined
    requireOpen(found)
    const [before] = found.enrollments
    const enrolled = before && (await this.again(before))
    if (enrolled) return { token: found, enrolled }
    requireUse(found, serialNumber)
    await this.requireFree(found, serialNumber)
    return { token: found }
  }

  private async write(
    tx: PrismaTransaction,
    {
      deviceId,
      serialNumber,
      publicKeyHash,
      tokenId,
      address,
    }: { deviceId: string; serialNumber: string; publicKeyHash: string; tokenId: string; address: string },
    signed: SignedCertificate,
  ): Promise<{ device: Device; components: string[] }> {
    // Another device may have come in with it while Vault was signing.
    const token = await this.store.lockToken(tx, tokenId)
    requireOpen(token)
    requireUse(token, serialNumber)
    await this.requireFree(token, serialNumber, tx)
    const { organizationId, blueprintId } = token
    const newcomer = { id: deviceId, organizationId, blueprintId, serialNumber }
    const device = await this.store.addDevice(tx, newcomer).catch((error: unknown) => {
      throw isUniqueViolation(error) ? new EnrollmentRefused('serial_number_taken') : error
    })
    const components = await this.store.addComponents(tx, newcomer)
    await this.signing.record(tx, deviceId, signed)
    const certificateSerial = signed.serial
    await this.store.add(tx, { deviceId, tokenId, serialNumber, publicKeyHash, certificateSerial })
    await this.audit.record(tx, {
      actor: { kind: 'device', id: deviceId, address },
      action: 'device.enrolled',
      subject: { kind: 'device', id: deviceId },
      organizationId,
      detail: {
        serialNumber,
        enrollmentTokenId: tokenId,
        serial: signed.serial,
        expiresAt: signed.notAfter.toISOString(),
      },
    })
    await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
    return { device, components }
  }

  /** What a device was told when it came in; undefined when that is not good any more. */
  private async again(enrollment: Enrollment): Promise<Enrolled | undefined> {
    const before = await this.store.again(enrollment)
    const signed = before && handedOut(before.certificate)
    return signed && { device: before.device, signed, components: before.components }
  }

  private async requireFree(
    { organizationId }: EnrollmentToken,
    serialNumber: string,
    tx?: PrismaTransaction,
  ): Promise<void> {
    if (await this.store.isTaken(organizationId, serialNumber, tx)) throw new EnrollmentRefused('serial_number_taken')
  }

  /** Never throws: the answer is the one that was meant. */
  private async writeRefusal(reason: string, { token, serialNumber, address }: Attempt): Promise<void> {
    this.logger.warn('an enrollment was refused', { reason, serialNumber, address })
    const noted = { ...REFUSED, reason, serialNumber, address }
    if (!token) return this.journal.note(noted)
    const subject = { kind: 'enrollment_token', id: token.id } as const
    const { organizationId } = token
    const { action } = REFUSED
    const detail = { reason, serialNumber, address }
    try {
      await this.audit.recordAll([{ actor: { kind: 'system' }, action, subject, organizationId, detail }])
    } catch (error) {
      this.logger.warn('a refused enrollment is not in the audit yet', { error: String(error) })
      this.journal.note({ ...noted, subject, organizationId })
    }
  }
}

/** What is known of who tries. */
interface Attempt {
  readonly serialNumber: string
  readonly address: string
  /** When there is such a token, good or not. */
  token?: EnrollmentToken | undefined
}

/** As the journal has it when there is no such token, or nobody looked. */
const REFUSED = { action: 'device.enrollment_refused', subject: { kind: 'enrollment_token', id: 'unknown' } } as const

/** The token does not let this device in. Why is for the audit: who tries hears one answer. */
class EnrollmentRefused extends DomainError {
  constructor(
    readonly reason:
      | 'token_unknown'
      | 'token_expired'
      | 'token_revoked'
      | 'token_used_up'
      | 'serial_number_not_listed'
      | 'serial_number_taken',
  ) {
    super('forbidden', 'enrollment_refused', 'This token does not let this device in.')
  }
}

function reasonOf(error: unknown): string {
  return error instanceof EnrollmentRefused ? error.reason : problemOf(error, undefined).code
}

function requireOpen(token: EnrollmentToken | null): asserts token is EnrollmentToken {
  if (!token) throw new EnrollmentRefused('token_unknown')
  if (token.revokedAt) throw new EnrollmentRefused('token_revoked')
  if (token.expiresAt <= new Date()) throw new EnrollmentRefused('token_expired')
}

function requireUse(token: EnrollmentToken, serialNumber: string): void {
  if (token.uses >= token.maximumUses) throw new EnrollmentRefused('token_used_up')
  if (token.serialNumbers.length > 0 && !token.serialNumbers.includes(serialNumber)) {
    throw new EnrollmentRefused('serial_number_not_listed')
  }
}
