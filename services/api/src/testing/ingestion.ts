import type { Pool } from 'pg'
import { CountFolding } from '../features/telemetry/count-folding'
import { HardwareCache } from '../features/telemetry/hardware.cache'
import { HardwareStore } from '../features/telemetry/hardware.store'
import { IngestStore } from '../features/telemetry/ingest.store'
import { Partitions } from '../features/telemetry/partitions'
import { type IngestObservers, IngestService } from '../features/telemetry/telemetry.ingest'

/** Ingestion as it is, without gRPC before it: for tests that need telemetry in a database. */
export function testIngestion(pool: Pool, observers: IngestObservers = {}) {
  const hardware = new HardwareCache(new HardwareStore(pool), { recheckAfterMs: 0 })
  const store = new IngestStore(pool, new Partitions(pool))
  const service = new IngestService(hardware, store, { note() {} }, Date.now, observers)
  return { service, store, hardware, folding: () => foldOnce(pool) }
}

async function foldOnce(pool: Pool): Promise<void> {
  const folding = new CountFolding(pool, { logger: FAILING, everyMs: 3_600_000 })
  await folding.fold()
  await folding.stop()
}

const FAILING = {
  warn(message: string, details: object) {
    throw new Error(`${message} ${JSON.stringify(details)}`)
  },
} as never
