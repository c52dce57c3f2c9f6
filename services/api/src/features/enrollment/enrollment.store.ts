import type { PrismaTransaction } from '../../database'
import type { Certificate, Device, Enrollment, EnrollmentToken, PrismaClient } from '../../generated/prisma/client'

/** What a device is asked for when it comes in. */
export interface NewcomerDevice {
  readonly id: string
  readonly organizationId: string
  readonly blueprintId: string
  readonly serialNumber: string
}

/** A device that came in before, with what it was given then. */
export interface StoredEnrollment {
  readonly device: Device
  readonly components: string[]
  readonly certificate: Certificate
}

/** How devices came in, in the database. */
export class EnrollmentStore {
  constructor(private readonly prisma: PrismaClient) {}

  /** The token, and the enrollments with it of this serial number and key: one or none. */
  token(
    tokenHash: Buffer<ArrayBuffer>,
    { serialNumber, publicKeyHash }: { readonly serialNumber: string; readonly publicKeyHash: string },
  ): Promise<(EnrollmentToken & { enrollments: Enrollment[] }) | null> {
    return this.prisma.enrollmentToken.findUnique({
      where: { tokenHash },
      include: { enrollments: { where: { serialNumber, publicKeyHash } } },
    })
  }

  /** The token as it is, and nobody else comes in with it until the transaction ends. */
  async lockToken(tx: PrismaTransaction, id: string): Promise<EnrollmentToken | null> {
    await tx.$queryRaw`SELECT 1 FROM enrollment_tokens WHERE id = ${id}::uuid FOR UPDATE`
    return tx.enrollmentToken.findUnique({ where: { id } })
  }

  /** Whether a device of the organization has this serial number, or has it for its name. */
  async isTaken(
    organizationId: string,
    serialNumber: string,
    prisma: PrismaTransaction = this.prisma,
  ): Promise<boolean> {
    const where = { organizationId, OR: [{ serialNumber }, { name: serialNumber }] }
    return (await prisma.device.count({ where })) > 0
  }

  addDevice(tx: PrismaTransaction, device: NewcomerDevice): Promise<Device> {
    return tx.device.create({ data: { ...device, name: device.serialNumber } })
  }

  /** Gives a device every component that its blueprint supports. @returns their names */
  async addComponents(tx: PrismaTransaction, { id: deviceId, blueprintId }: NewcomerDevice): Promise<string[]> {
    const supported = await tx.supportedComponent.findMany({ where: { blueprintId }, orderBy: { name: 'asc' } })
    await tx.componentInstance.createMany({
      data: supported.map(({ id, name }) => ({ deviceId, supportedComponentId: id, name })),
    })
    return supported.map(({ name }) => name)
  }

  /** Notes that the token let a device in. */
  async add(
    tx: PrismaTransaction,
    enrollment: {
      readonly deviceId: string
      readonly tokenId: string
      readonly serialNumber: string
      readonly publicKeyHash: string
      readonly certificateSerial: string
    },
  ): Promise<void> {
    await tx.enrollment.create({ data: enrollment })
    await tx.enrollmentToken.update({ where: { id: enrollment.tokenId }, data: { uses: { increment: 1 } } })
  }

  /** What a device was given when it came in; undefined when device or certificate is not good any more. */
  async again({ deviceId, certificateSerial: serial }: Enrollment): Promise<StoredEnrollment | undefined> {
    const found = await this.prisma.device.findFirst({
      where: { id: deviceId, state: 'active' },
      include: {
        components: { orderBy: { name: 'asc' } },
        certificates: { where: { serial, state: 'active', notAfter: { gt: new Date() } } },
      },
    })
    if (!found) return undefined
    const { components, certificates, ...device } = found
    const [certificate] = certificates
    return certificate && { device, certificate, components: components.map(({ name }) => name) }
  }
}
