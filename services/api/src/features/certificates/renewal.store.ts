import type { PrismaTransaction } from '../../database'
import type { Certificate, PrismaClient } from '../../generated/prisma/client'

/** What renewal reads and writes beside the certificate itself. */
export class RenewalStore {
  constructor(private readonly prisma: PrismaClient) {}

  /** Active and not ended. */
  good(deviceId: string, prisma: PrismaTransaction = this.prisma): Promise<Certificate[]> {
    return prisma.certificate.findMany({ where: { deviceId, state: 'active', notAfter: { gt: new Date() } } })
  }

  /** A certificate that may still be used, and its device may, too. */
  usable(deviceId: string, serial: string): Promise<Certificate | null> {
    return this.prisma.certificate.findFirst({
      where: { serial, deviceId, state: 'active', notAfter: { gt: new Date() }, device: { state: 'active' } },
    })
  }

  async retire(tx: PrismaTransaction, serials: readonly string[]): Promise<void> {
    if (serials.length === 0) return
    await tx.certificate.updateMany({
      where: { serial: { in: [...serials] }, state: 'active' },
      data: { state: 'retired', retiredAt: new Date() },
    })
  }

  /** Devices that were seen since then with a renewed certificate while an older one is still active. */
  async withSuccessorSeen(since: Date): Promise<string[]> {
    const rows = await this.prisma.$queryRaw<Array<{ device_id: string }>>`
      SELECT DISTINCT n.device_id FROM certificates n
       WHERE n.first_seen_at > ${since} AND n.state = 'active' AND n.supersedes IS NOT NULL
         AND EXISTS (SELECT 1 FROM certificates o
                      WHERE o.device_id = n.device_id AND o.state = 'active' AND o.created_at < n.created_at)`
    return rows.map((row) => row.device_id)
  }

  /** Active ones whose end has come. */
  ended(limit: number): Promise<Array<Pick<Certificate, 'serial' | 'deviceId'>>> {
    return this.prisma.certificate.findMany({
      where: { state: 'active', notAfter: { lt: new Date() } },
      select: { serial: true, deviceId: true },
      take: limit,
    })
  }
}
