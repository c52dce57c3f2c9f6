import { telemetryService } from '@ares/proto/ingest-codec'
import { ReportLoadRequest, TelemetryServiceService } from '@ares/proto/telemetry/v1/telemetry'
import type { EmqxManagement } from './broker/emqx-management'
import type { ApiContext } from './context'
import { openIngestPool } from './database/ingest-pool'
import { AuditService } from './features/audit/audit.service'
import { AuditStore } from './features/audit/audit.store'
import { deadLetterRoutes } from './features/dead-letters/dead-letters.routes'
import { DeadLetterService } from './features/dead-letters/dead-letters.service'
import { DeadLetterStore } from './features/dead-letters/dead-letters.store'
import { DeadLetterUpkeep } from './features/dead-letters/dead-letters.upkeep'
import { EmqxDevicesBucket } from './features/governor/devices-bucket'
import { Governor } from './features/governor/governor'
import { GovernorMemory } from './features/governor/governor.memory'
import { Leadership } from './features/governor/leadership'
import { LoadBoard } from './features/governor/load-board'
import { reconciliationRoutes } from './features/reconciliation/reconciliation.routes'
import { ReconciliationService } from './features/reconciliation/reconciliation.service'
import { ReconciliationStore } from './features/reconciliation/reconciliation.store'
import { Rollups } from './features/rollups/rollups'
import { RollupQueries } from './features/rollups/rollups.query'
import { rollupRoutes } from './features/rollups/rollups.routes'
import { CountFolding } from './features/telemetry/count-folding'
import { DeviceBudget } from './features/telemetry/device-budget'
import { HardwareCache } from './features/telemetry/hardware.cache'
import { followHardware } from './features/telemetry/hardware.notifications'
import { HardwareStore } from './features/telemetry/hardware.store'
import { createIngestMetrics } from './features/telemetry/ingest.metrics'
import { IngestStore } from './features/telemetry/ingest.store'
import { LastSeen } from './features/telemetry/last-seen'
import { OverBudgetList } from './features/telemetry/over-budget'
import { Partitions } from './features/telemetry/partitions'
import { QueryStore } from './features/telemetry/query.store'
import { IngestService } from './features/telemetry/telemetry.ingest'
import { TelemetryQueryService } from './features/telemetry/telemetry.query'
import { TelemetryReplay } from './features/telemetry/telemetry.replay'
import { telemetryRoutes } from './features/telemetry/telemetry.routes'
import { telemetryRpc } from './features/telemetry/telemetry.rpc'
import { TelemetryUpkeep } from './features/telemetry/telemetry.upkeep'
import type { Rooms } from './rooms'

/**
 * The rooms of what devices report: ingestion, queries, roll-ups, dead letters, reconciliation.
 * Started after the notifications of the database.
 * @param broker absent: nobody governs the rate of the devices
 */
export function telemetryRooms(context: ApiContext, broker?: Pick<EmqxManagement, 'call'>): Rooms {
  const { config, notifications, logger } = context
  const { prisma, pool } = context.database
  const ingestPool = openIngestPool({
    connectionString: context.database.connectionString,
    onIdleError: (error) => logger.warn('a connection to PostgreSQL broke', { error: error.message }),
  })
  const metrics = createIngestMetrics(context.metrics)
  const partitions = new Partitions(ingestPool)
  const hardware = new HardwareCache(new HardwareStore(ingestPool))
  followHardware(hardware, notifications)
  const store = new IngestStore(ingestPool, partitions)
  const lastSeen = new LastSeen(pool, { logger })
  const counts = new CountFolding(pool, { logger })
  const upkeep = new TelemetryUpkeep(pool, partitions, logger)
  const budget = config.deviceBudget && new DeviceBudget(config.deviceBudget)
  const overBudget = new OverBudgetList(pool, budget, logger)
  const letterUpkeep = new DeadLetterUpkeep(pool, logger)
  const ingest = new IngestService(hardware, store, lastSeen, Date.now, { budget, metrics })
  const letters = new DeadLetterService(new DeadLetterStore(pool), {
    telemetry: new TelemetryReplay(hardware, store),
    audit: new AuditService(new AuditStore(prisma)),
    onReplayed: (result) => metrics.replayed.inc({ result }),
  })
  const rollups = new Rollups(pool, logger)
  const loads = new LoadBoard(shareLoads(context))
  notifications.on(LOADS, (payload) => loads.note(ReportLoadRequest.fromJSON(JSON.parse(payload))))
  const leadership = new Leadership(context.database.connectionString, 'governor')
  const governor =
    broker && config.emqxApiUrl && config.governor
      ? new Governor(config.governor, {
          bucket: new EmqxDevicesBucket(broker),
          board: loads,
          leadership,
          memory: new GovernorMemory(pool),
          logger,
          metrics: context.metrics,
        })
      : undefined
  return {
    routes: [
      ...telemetryRoutes(new TelemetryQueryService(new QueryStore(pool))),
      ...rollupRoutes(new RollupQueries(pool)),
      ...reconciliationRoutes(new ReconciliationService(new ReconciliationStore(pool)), overBudget),
      ...deadLetterRoutes(letters),
    ],
    rpc: [{ definition: telemetryService, implementation: telemetryRpc(ingest, loads) }],
    allow: {
      [TelemetryServiceService.ingest.path]: ['listener'],
      [TelemetryServiceService.reportLoad.path]: ['listener'],
    },
    async start() {
      await upkeep.start()
      rollups.start()
      overBudget.start()
      letterUpkeep.start()
      if (governor) leadership.start()
      governor?.start()
    },
    async stop() {
      await governor?.stop()
      await leadership.stop()
      await letterUpkeep.stop()
      await rollups.stop()
      await overBudget.stop()
      await upkeep.stop()
      await lastSeen.stop()
      await counts.stop()
      await ingestPool.end()
    },
  }
}

const LOADS = 'ares_load'

/** Tells the other replicas of api what a listener said. While the database is away or slow, they do not hear it. */
function shareLoads({ database, logger }: ApiContext): (report: ReportLoadRequest) => void {
  const inFlight = new Set<string>()
  return (report) => {
    if (inFlight.has(report.listener)) return
    inFlight.add(report.listener)
    const payload = JSON.stringify(ReportLoadRequest.toJSON(report))
    database.pool.query('SELECT pg_notify($1, $2)', [LOADS, payload]).then(
      () => inFlight.delete(report.listener),
      (error: unknown) => {
        inFlight.delete(report.listener)
        logger.debug('the other replicas were not told of a load', { error: String(error) })
      },
    )
  }
}
