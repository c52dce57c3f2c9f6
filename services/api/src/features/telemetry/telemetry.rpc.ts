import { unaryHandler } from '@ares/chassis'
import type { PlainTelemetryServer } from '@ares/proto/ingest-codec'
import type { LoadBoard } from '../governor/load-board'
import type { IngestService } from './telemetry.ingest'

/** TelemetryService over gRPC, for the listener. */
export const telemetryRpc = (service: IngestService, loads: Pick<LoadBoard, 'report'>): PlainTelemetryServer => ({
  ingest: unaryHandler((request) => service.ingest(request)),
  reportLoad: unaryHandler(async (request) => loads.report(request)),
})
