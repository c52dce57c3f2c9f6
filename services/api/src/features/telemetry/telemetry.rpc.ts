import { unaryHandler } from '@ares/chassis'
import type { TelemetryServiceServer } from '@ares/proto/telemetry/v1/telemetry'
import type { IngestService } from './telemetry.ingest'

/** TelemetryService over gRPC, for the listener. */
export const telemetryRpc = (service: IngestService): TelemetryServiceServer => ({
  ingest: unaryHandler((request) => service.ingest(request)),
})
