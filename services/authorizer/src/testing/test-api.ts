import {
  createLogger,
  createMetrics,
  type GrpcServer,
  type LeafSource,
  startGrpcServer,
  unaryHandler,
} from '@ares/chassis'
import {
  type Admission,
  AdmissionServiceService,
  type RecordAdmissionsRequest,
} from '@ares/proto/directory/v1/admission'
import {
  type ConfirmDirectoryRequest,
  DirectoryServiceService,
  type WatchDirectoryRequest,
  type WatchDirectoryResponse,
} from '@ares/proto/directory/v1/directory'
import type { ServerWritableStream } from '@grpc/grpc-js'

type Call = ServerWritableStream<WatchDirectoryRequest, WatchDirectoryResponse>

/** A real gRPC server in api's place, whose test says what the directory's streams carry. */
export class TestApi {
  private constructor(
    private readonly server: GrpcServer,
    /** Every stream that was ever opened. */
    readonly calls: Call[],
    /** What authorizers said they hold. */
    readonly confirmed: ConfirmDirectoryRequest[],
    /** Every batch for the audit that came, also one that was refused. */
    readonly batches: RecordAdmissionsRequest[],
    private readonly audit: { broken: Error | undefined },
  ) {}

  /** @param onWatch what to do with a stream that was opened */
  static async start(identity: LeafSource, onWatch: (call: Call) => void, port = 0): Promise<TestApi> {
    const calls: Call[] = []
    const confirmed: ConfirmDirectoryRequest[] = []
    const batches: RecordAdmissionsRequest[] = []
    const audit: { broken: Error | undefined } = { broken: undefined }
    const server = await startGrpcServer({
      identity,
      bind: { host: '127.0.0.1', port },
      logger: createLogger({ service: 'test-api', level: 'error' }),
      metrics: createMetrics('test-api'),
      services: [
        {
          definition: DirectoryServiceService,
          implementation: {
            watchDirectory: (call: Call) => {
              calls.push(call)
              onWatch(call)
            },
            confirmDirectory: unaryHandler(async (request: ConfirmDirectoryRequest) => {
              confirmed.push(request)
              return {}
            }),
          },
        },
        {
          definition: AdmissionServiceService,
          implementation: {
            recordAdmissions: unaryHandler(async (request: RecordAdmissionsRequest) => {
              batches.push(request)
              if (audit.broken) throw audit.broken
              return { stored: request.admissions.length }
            }),
          },
        },
      ],
      allow: {
        [DirectoryServiceService.watchDirectory.path]: ['authorizer'],
        [DirectoryServiceService.confirmDirectory.path]: ['authorizer'],
        [AdmissionServiceService.recordAdmissions.path]: ['authorizer'],
      },
    })
    return new TestApi(server, calls, confirmed, batches, audit)
  }

  get port(): number {
    return this.server.port
  }

  get lastCall(): Call {
    return this.calls[this.calls.length - 1]!
  }

  /** All that came for the audit, in the order in which it came. */
  get admissions(): Admission[] {
    return this.batches.flatMap(({ admissions }) => admissions)
  }

  /** From now on batches for the audit fail with this error; undefined: they are taken again. */
  breakAudit(error: Error | undefined): void {
    this.audit.broken = error
  }

  stop(): Promise<void> {
    return this.server.stop(0)
  }
}
