import {
  type CallOptions,
  type Client,
  type ClientUnaryCall,
  type handleUnaryCall,
  type Metadata,
  makeGenericClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js'
import {
  type IngestResponse,
  type TelemetryServiceClient,
  type TelemetryServiceServer,
  TelemetryServiceService,
} from './gen/ares/telemetry/v1/telemetry'
import { decodeIngestRequest } from './ingest-decoder'
import { type EncodedRequest, joinIngestRequest } from './ingest-encoder'
import type { PlainRequest } from './plain-telemetry'

export { decodeIngestRequest } from './ingest-decoder'
export { type EncodedMessage, type EncodedRequest, MessageEncoder } from './ingest-encoder'

/**
 * TelemetryService with a codec for the one call where it counts: ten thousand reports a second go through Ingest. A client
 * gives messages that are encoded already, each when it came; a server is given plain ones. The bytes are those of the
 * contract, any protobuf library reads them; only how they are made and read is by hand, without an object for each nested
 * message and value.
 *
 * Whatever is unusual (an instant before 1970, a field that we do not know) is left to the generated code, which is right
 * in all cases; `ingest-codec.test.ts` holds both against each other.
 */
export const telemetryService = {
  ...TelemetryServiceService,
  ingest: {
    ...TelemetryServiceService.ingest,
    requestSerialize: joinIngestRequest,
    requestDeserialize: decodeIngestRequest,
  },
}

/** What serves it. */
export interface PlainTelemetryServer extends Omit<TelemetryServiceServer, 'ingest'> {
  ingest: handleUnaryCall<PlainRequest, IngestResponse>
}

/** TelemetryServiceClient with this codec. */
export const IngestClient = makeGenericClientConstructor(
  telemetryService,
  'ares.telemetry.v1.TelemetryService',
) as unknown as new (
  ...options: ConstructorParameters<typeof Client>
) => IngestClient

export interface IngestClient extends Client {
  readonly reportLoad: TelemetryServiceClient['reportLoad']
  ingest(
    request: EncodedRequest,
    metadata: Metadata,
    options: Partial<CallOptions>,
    callback: (error: ServiceError | null, response: IngestResponse) => void,
  ): ClientUnaryCall
}
