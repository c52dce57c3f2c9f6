import type { BrokerSessions } from './broker/broker-sessions'
import type { ApiContext } from './context'
import { AuditService } from './features/audit/audit.service'
import { AuditStore } from './features/audit/audit.store'
import type { Pki } from './features/certificates/pki'
import type { FindingSource } from './features/fleet/findings'
import { PkiFindings } from './features/pki/pki-findings'
import type { PkiInventory } from './features/pki/pki-inventory'
import { PkiReconciler } from './features/pki/pki-reconciler'
import { PkiReconcilerStore } from './features/pki/pki-reconciler.store'
import { RevocationMetrics } from './features/revocations/revocation-metrics'
import { RevocationUpkeep } from './features/revocations/revocation-upkeep'
import { RevocationWorker } from './features/revocations/revocation-worker'
import type { DirectoryReach } from './features/revocations/revocations'
import { revocationRoutes } from './features/revocations/revocations.routes'
import { RevocationService } from './features/revocations/revocations.service'
import { RevocationStore } from './features/revocations/revocations.store'
import type { Rooms } from './rooms'

/** A revocation that has not taken effect by then is worth a look. */
const OVERDUE_AFTER_MS = 10_000

/** The room that cuts devices off with its worker, and the comparison of Vault with the database. */
export function revocationRooms(
  { database: { prisma, pool }, health, logger, metrics }: ApiContext,
  {
    pki,
    broker,
    directory,
    inventory,
  }: {
    readonly pki: Pki
    readonly broker: BrokerSessions
    readonly directory: DirectoryReach
    /** Absent: nothing is compared. */
    readonly inventory?: PkiInventory
  },
): Rooms & { readonly findings: readonly FindingSource[] } {
  const audit = new AuditService(new AuditStore(prisma))
  const store = new RevocationStore(prisma)
  const revocations = new RevocationService({
    store,
    pki,
    broker,
    directory,
    audit,
    metrics: new RevocationMetrics(metrics, () => store.unfinished()),
    logger,
  })
  const worker = new RevocationWorker(revocations, { logger })
  const upkeep = new RevocationUpkeep(store, logger)
  const reconciler =
    inventory && new PkiReconciler({ inventory, store: new PkiReconcilerStore(pool), pki, audit, metrics, logger })
  return {
    findings: reconciler ? [new PkiFindings(reconciler)] : [],
    routes: revocationRoutes(revocations),
    rpc: [],
    allow: {},
    async start() {
      health.check('revocations', async () => {
        const { count, oldest } = await store.overdue(OVERDUE_AFTER_MS)
        if (!oldest) return true
        const { id, createdAt, failedStep, lastError } = oldest
        const why = failedStep ? `, ${failedStep}: ${lastError}` : ''
        // Api itself is of use all the same: a replica that is taken out of service would finish nothing.
        const detail = `${count} not in effect yet, the oldest (${id}) since ${createdAt.toISOString()}${why}`
        return { ok: true, degraded: true, detail }
      })
      worker.start()
      upkeep.start()
      reconciler?.start()
    },
    async stop() {
      await worker.stop()
      await upkeep.stop()
      await reconciler?.stop()
    },
  }
}
