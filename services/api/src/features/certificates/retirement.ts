import type { Logger } from '@ares/chassis'
import { Recurring } from '../../recurring'
import type { AuditService } from '../audit/audit.service'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { CertificateStore } from './certificates.store'
import type { RenewalStore } from './renewal.store'

/**
 * Retires certificates: the old ones of a device that was seen with a renewed one, and those that have ended. A retired
 * certificate is not admitted any more. It looks at what is stored, so nothing is forgotten through a restart, and two
 * processes at once do no harm.
 */
export class Retirement {
  private readonly recurring = new Recurring(
    () => this.sweep(),
    (error) => this.logger.warn('old certificates were not retired, trying again', { error: String(error) }),
  )
  private lookBack: Date | undefined

  constructor(
    private readonly certificates: CertificateStore,
    private readonly store: RenewalStore,
    private readonly audit: AuditService,
    private readonly logger: Pick<Logger, 'warn'>,
    private readonly intervalMs = 2_000,
  ) {}

  start(): void {
    this.recurring.start(this.intervalMs)
  }

  stop(): Promise<void> {
    return this.recurring.stop()
  }

  /** One round. @returns how many were retired */
  async sweep(): Promise<number> {
    const begun = new Date()
    // The first round looks at everything; connections are reported late at most by the time of a restart or two.
    const devices = await this.store.withSuccessorSeen(this.lookBack ?? new Date(0))
    let retired = 0
    for (const deviceId of devices) retired += await this.retireOlder(deviceId)
    const ended = await this.store.ended(1_000)
    for (const deviceId of new Set(ended.map((one) => one.deviceId))) {
      const serials = ended.filter((one) => one.deviceId === deviceId).map((one) => one.serial)
      retired += await this.retire(deviceId, 'it has ended', async () => serials)
    }
    this.lookBack = new Date(begun.getTime() - LATE_REPORTS_MS)
    return retired
  }

  private retireOlder(deviceId: string): Promise<number> {
    return this.retire(deviceId, 'the device connected with a newer one', (good) => {
      const newest = good
        .filter((one) => one.supersedes !== null && one.firstSeenAt !== null)
        .sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime())[0]
      return newest ? good.filter((one) => one.createdAt < newest.createdAt).map((one) => one.serial) : []
    })
  }

  private retire(
    deviceId: string,
    because: string,
    which: (good: Awaited<ReturnType<RenewalStore['good']>>) => string[] | Promise<string[]>,
  ): Promise<number> {
    return this.certificates.transaction(async (tx) => {
      const device = await this.certificates.lockOwner(tx, deviceId)
      const serials = device ? await which(await this.store.good(deviceId, tx)) : []
      if (!device || serials.length === 0) return 0
      await this.store.retire(tx, serials)
      for (const serial of serials) {
        await this.audit.record(tx, {
          actor: { kind: 'system' },
          action: 'certificate.retired',
          subject: { kind: 'device', id: deviceId },
          organizationId: device.organizationId,
          detail: { serial, because },
        })
      }
      await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
      return serials.length
    })
  }
}

/** The authorizers report connections in batches, and keep them while api is away. */
const LATE_REPORTS_MS = 3_600_000
