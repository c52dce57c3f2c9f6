import { Writable } from 'node:stream'
import {
  createLogger,
  createMetrics,
  DomainError,
  type GrpcServer,
  type LeafSource,
  type Logger,
  startGrpcServer,
  unaryHandler,
} from '@ares/chassis'
import { CommandServiceService, type RecordResponsesRequest } from '@ares/proto/commands/v1/commands'
import {
  DeviceServiceService,
  type RecordStatusRequest,
  type RenewCertificateRequest,
  type RenewCertificateResponse,
} from '@ares/proto/devices/v1/devices'
import {
  type IngestRequest,
  type IngestResponse,
  type Message,
  type ReportLoadRequest,
  Result,
  TelemetryServiceService,
} from '@ares/proto/telemetry/v1/telemetry'

/** What the test API does with one batch. */
export type Answer = (request: IngestRequest) => Promise<IngestResponse> | IngestResponse

/** An api over real gRPC and mTLS, whose commits the test decides. What it answered is what is "committed". */
export class TestApi {
  readonly committed: Message[] = []
  readonly calls: IngestRequest[] = []
  readonly statuses: RecordStatusRequest['statuses'] = []
  readonly responses: RecordResponsesRequest['responses'] = []
  readonly loads: ReportLoadRequest[] = []
  /** What each listener is told of the others. */
  standing = { listeners: 1, hasKeeper: false }
  /** Replaced by tests. */
  answer: Answer = commitAll
  renew: (request: RenewCertificateRequest) => Promise<RenewCertificateResponse> = async () => ({
    result: { $case: 'refused', value: { code: 'renewal_too_early', detail: 'not yet', retryAfterSeconds: 60 } },
  })
  private server: GrpcServer | undefined

  constructor(private readonly identity: LeafSource) {}

  /** @param port 0 for any; the one it had, to come back */
  async start(port = 0): Promise<number> {
    this.server = await startGrpcServer({
      identity: this.identity,
      bind: { host: '127.0.0.1', port },
      logger: quietLogger(),
      metrics: createMetrics('api'),
      services: [
        {
          definition: TelemetryServiceService,
          implementation: {
            ingest: unaryHandler((r: IngestRequest) => this.ingest(r)),
            reportLoad: unaryHandler(async (r: ReportLoadRequest) => {
              this.loads.push(r)
              return this.standing
            }),
          },
        },
        {
          definition: DeviceServiceService,
          implementation: {
            recordStatus: unaryHandler(async (request: RecordStatusRequest) => {
              this.statuses.push(...request.statuses)
              return { changed: request.statuses.length }
            }),
            renewCertificate: unaryHandler((request: RenewCertificateRequest) => this.renew(request)),
          },
        },
        {
          definition: CommandServiceService,
          implementation: {
            recordResponses: unaryHandler(async (request: RecordResponsesRequest) => {
              this.responses.push(...request.responses)
              return { changed: request.responses.length }
            }),
          },
        },
      ],
      allow: {
        [TelemetryServiceService.ingest.path]: ['listener'],
        [TelemetryServiceService.reportLoad.path]: ['listener'],
        [DeviceServiceService.recordStatus.path]: ['listener'],
        [DeviceServiceService.renewCertificate.path]: ['listener'],
        [CommandServiceService.recordResponses.path]: ['listener'],
      },
    })
    return this.server.port
  }

  async stop(): Promise<void> {
    await this.server?.stop(100)
    this.server = undefined
  }

  /** Payloads of what is committed, as text. */
  get payloads(): string[] {
    return this.committed.map((message) => message.payload.toString())
  }

  private async ingest(request: IngestRequest): Promise<IngestResponse> {
    this.calls.push(request)
    const response = await this.answer(request)
    this.committed.push(...request.messages)
    return response
  }
}

export const commitAll: Answer = ({ messages }) => ({
  results: messages.map(() => Result.RESULT_COMMITTED),
  refusals: [],
  receipts: [],
})

/** Says of a whole batch that it breaks the contract, as long as `isBad` is true of one of its messages. */
export function refuseBatchesWith(isBad: (message: Message) => boolean): Answer {
  return (request) => {
    if (request.messages.some(isBad)) throw new DomainError('invalid', 'bad_message', 'bad message')
    return commitAll(request)
  }
}

export const quietLogger = (): Logger =>
  createLogger({ service: 'test', stream: new Writable({ write: (_c, _e, done) => done() }) })
