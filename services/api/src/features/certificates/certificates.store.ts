import { X509Certificate } from 'node:crypto'
import type { PrismaTransaction } from '../../database'
import type { Certificate, PrismaClient } from '../../generated/prisma/client'
import type { DeviceState } from '../../generated/prisma/enums'
import { publicKeyHashOf } from './kept-certificate'
import type { SignedCertificate } from './pki'

export interface CertificateOwner {
  readonly id: string
  readonly organizationId: string
  readonly state: DeviceState
  /** Certificates that are active and not ended. */
  readonly certificates: number
}

/** Certificates in the database. */
export class CertificateStore {
  constructor(private readonly prisma: PrismaClient) {}

  transaction<T>(work: (tx: PrismaTransaction) => Promise<T>): Promise<T> {
    return this.prisma.$transaction(work)
  }

  /** The device as it is now; undefined when it is gone. */
  owner(deviceId: string): Promise<CertificateOwner | undefined> {
    return readOwner(this.prisma, deviceId)
  }

  /** The same, and nobody else changes its state or certificates until the transaction ends. */
  async lockOwner(tx: PrismaTransaction, deviceId: string): Promise<CertificateOwner | undefined> {
    await tx.$queryRaw`SELECT 1 FROM devices WHERE id = ${deviceId}::uuid FOR UPDATE`
    return readOwner(tx, deviceId)
  }

  async insert(
    tx: PrismaTransaction,
    deviceId: string,
    signed: SignedCertificate,
    { requestedBy = null, supersedes = null }: { requestedBy?: string | null; supersedes?: string | null } = {},
  ): Promise<void> {
    const { serial, fingerprint, notBefore, notAfter, certificatePem, chainPem } = signed
    const pem = [certificatePem, ...chainPem].join('')
    const publicKeyHash = publicKeyHashOf(new X509Certificate(certificatePem).publicKey)
    await tx.certificate.create({
      data: { serial, deviceId, fingerprint, notBefore, notAfter, requestedBy, supersedes, pem, publicKeyHash },
    })
  }

  /** Newest first. @param after serial of the last one that was seen */
  list(deviceId: string, limit: number, after?: string): Promise<Certificate[]> {
    return this.prisma.certificate.findMany({
      where: { deviceId },
      orderBy: [{ createdAt: 'desc' }, { serial: 'asc' }],
      take: limit,
      ...(after === undefined ? {} : { cursor: { serial: after }, skip: 1 }),
    })
  }
}

async function readOwner(prisma: PrismaTransaction, id: string): Promise<CertificateOwner | undefined> {
  const device = await prisma.device.findUnique({
    where: { id },
    select: {
      id: true,
      organizationId: true,
      state: true,
      _count: { select: { certificates: { where: { state: 'active', notAfter: { gt: new Date() } } } } },
    },
  })
  if (!device) return undefined
  // What is being disabled or deleted gets nothing new: its revocation has its list already.
  const leaving = await prisma.revocation.count({
    where: { deviceId: id, kind: { not: 'certificate' }, databaseAt: null },
  })
  return { ...device, state: leaving > 0 ? 'disabled' : device.state, certificates: device._count.certificates }
}
