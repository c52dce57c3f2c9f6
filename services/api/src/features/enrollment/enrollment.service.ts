import { DomainError, type Logger } from '@ares/chassis'
import { isUniqueViolation, type PrismaTransaction } from '../../database'
import type { Device, EnrollmentToken, PrismaClient } from '../../generated/prisma/client'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import { CsrRejected, checkCsr } from '../certificates/csr'
import { handedOut, publicKeyHashOf } from '../certificates/kept-certificate'
import type { SignedCertificate } from '../certificates/pki'
import type { CertificateSigning } from '../certificates/signing'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { NewEnrollment } from './enrollment.schema'
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
 */
export class EnrollmentService {
  constructor(
    private readonly prisma: PrismaClient,
    private readonly signing: CertificateSigning,
    private readonly audit: AuditService,
    private readonly logger: Logger,
  ) {}

  /** @throws CsrRejected, DomainError `enrollment_refused`, and those of Pki */
  async enroll(request: NewEnrollment, address: string): Promise<Enrolled> {
    const { serialNumber } = request
    try {
      // First, and without a look at the token: what it says about a CSR it says to everybody.
      const csr = await checkCsr(request.csr, serialNumber)
      const publicKeyHash = publicKeyHashOf(csr.publicKey)
      const admitted = await this.admit(request, publicKeyHash)
      if ('enrolled' in admitted) return admitted.enrolled
      const deviceId = newId()
      const { signed, written } = await this.signing.sign(csr, deviceId, (tx, made) =>
        this.write(tx, { deviceId, serialNumber, publicKeyHash, tokenId: admitted.token.id, address }, made),
      )
      return { ...written, signed }
    } catch (error) {
      const attempt = error instanceof Attempt ? error : undefined
      if (!attempt && !(error instanceof CsrRejected)) throw error
      await this.writeRefusal(serialNumber, address, attempt ?? { reason: (error as CsrRejected).code })
      throw attempt ? refused() : error
    }
  }

  /** @returns the token, or what was answered the first time. @throws Attempt */
  private async admit(
    { token, serialNumber }: NewEnrollment,
    publicKeyHash: string,
  ): Promise<{ readonly token: EnrollmentToken } | { readonly enrolled: Enrolled }> {
    const found = await this.prisma.enrollmentToken.findUnique({
      where: { tokenHash: hashOf(token) },
      include: { enrollments: { where: { serialNumber, publicKeyHash } } },
    })
    requireOpen(found)
    const [before] = found.enrollments
    const enrolled = before && (await this.again(before.deviceId, before.certificateSerial))
    if (enrolled) return { enrolled }
    requireUse(found, serialNumber)
    await this.requireFree(this.prisma, found, serialNumber)
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
    await tx.$queryRaw`SELECT 1 FROM enrollment_tokens WHERE id = ${tokenId}::uuid FOR UPDATE`
    const token = await tx.enrollmentToken.findUnique({ where: { id: tokenId } })
    requireOpen(token)
    requireUse(token, serialNumber)
    await this.requireFree(tx, token, serialNumber)
    const { organizationId, blueprintId } = token
    const device = await tx.device
      .create({ data: { id: deviceId, organizationId, blueprintId, name: serialNumber, serialNumber } })
      .catch((error: unknown) => {
        throw isUniqueViolation(error) ? new Attempt('serial_number_taken', token) : error
      })
    const supported = await tx.supportedComponent.findMany({ where: { blueprintId }, orderBy: { name: 'asc' } })
    await tx.componentInstance.createMany({
      data: supported.map(({ id, name }) => ({ deviceId, supportedComponentId: id, name })),
    })
    await this.signing.record(tx, deviceId, signed)
    await tx.enrollment.create({
      data: { deviceId, tokenId, serialNumber, publicKeyHash, certificateSerial: signed.serial },
    })
    await tx.enrollmentToken.update({ where: { id: tokenId }, data: { uses: { increment: 1 } } })
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
    return { device, components: supported.map(({ name }) => name) }
  }

  /** What a device was told when it came in; undefined when that is not good any more. */
  private async again(deviceId: string, certificateSerial: string): Promise<Enrolled | undefined> {
    const device = await this.prisma.device.findFirst({
      where: { id: deviceId, state: 'active' },
      include: {
        components: { orderBy: { name: 'asc' } },
        certificates: { where: { serial: certificateSerial, state: 'active', notAfter: { gt: new Date() } } },
      },
    })
    const [certificate] = device?.certificates ?? []
    const signed = certificate && handedOut(certificate)
    return device && signed ? { device, signed, components: device.components.map(({ name }) => name) } : undefined
  }

  private async requireFree(prisma: PrismaTransaction, token: EnrollmentToken, serialNumber: string): Promise<void> {
    const { organizationId } = token
    const taken = await prisma.device.findFirst({
      where: { organizationId, OR: [{ serialNumber }, { name: serialNumber }] },
      select: { id: true },
    })
    if (taken) throw new Attempt('serial_number_taken', token)
  }

  private async writeRefusal(
    serialNumber: string,
    address: string,
    { reason, token }: { readonly reason: string; readonly token?: EnrollmentToken },
  ): Promise<void> {
    this.logger.warn('an enrollment was refused', { reason, serialNumber, address })
    await this.prisma.$transaction((tx) =>
      this.audit.record(tx, {
        actor: { kind: 'system' },
        action: 'device.enrollment_refused',
        subject: { kind: 'enrollment_token', id: token?.id ?? 'unknown' },
        organizationId: token?.organizationId,
        detail: { reason, serialNumber, address },
      }),
    )
  }
}

/** An attempt that fails, and why: for the audit, not for who tries. */
class Attempt extends Error {
  constructor(
    readonly reason:
      | 'token_unknown'
      | 'token_expired'
      | 'token_revoked'
      | 'token_used_up'
      | 'serial_number_not_listed'
      | 'serial_number_taken',
    readonly token?: EnrollmentToken,
  ) {
    super(`enrollment refused: ${reason}`)
  }
}

function requireOpen(token: EnrollmentToken | null): asserts token is EnrollmentToken {
  if (!token) throw new Attempt('token_unknown')
  if (token.revokedAt) throw new Attempt('token_revoked', token)
  if (token.expiresAt <= new Date()) throw new Attempt('token_expired', token)
}

function requireUse(token: EnrollmentToken, serialNumber: string): void {
  if (token.uses >= token.maximumUses) throw new Attempt('token_used_up', token)
  if (token.serialNumbers.length > 0 && !token.serialNumbers.includes(serialNumber)) {
    throw new Attempt('serial_number_not_listed', token)
  }
}

const refused = (): DomainError =>
  new DomainError('forbidden', 'enrollment_refused', 'This token does not let this device in.')
