import { once } from 'node:events'
import * as http2 from 'node:http2'
import { Writable } from 'node:stream'
import * as tls from 'node:tls'
import {
  DirectoryServiceClient,
  type DirectoryServiceServer,
  DirectoryServiceService,
  type WatchDirectoryResponse,
} from '@ares/proto/directory/v1/directory'
import {
  IngestRequest,
  IngestResponse,
  TelemetryServiceClient,
  type TelemetryServiceServer,
  TelemetryServiceService,
} from '@ares/proto/telemetry/v1/telemetry'
import { type Client, type ServiceError, status } from '@grpc/grpc-js'
import { serialOf } from '../certificates'
import { DomainError } from '../errors'
import { createLogger } from '../log'
import { createMetrics } from '../metrics'
import { requestId, withRequestId } from '../request-id'
import { TestAuthority, type TestIdentity, until } from '../testing'
import { createGrpcClient, unary } from './client'
import { streamHandler, unaryHandler } from './handlers'
import { FLOW_CONTROL_WINDOW_BYTES } from './limits'
import { type GrpcServer, type GrpcServerOptions, startGrpcServer } from './server'
import { domainCodeOf } from './status'

const INGEST = '/ares.telemetry.v1.TelemetryService/Ingest'
const REPORT_LOAD = TelemetryServiceService.reportLoad.path
const WATCH = '/ares.directory.v1.DirectoryService/WatchDirectory'
const CONFIRM = '/ares.directory.v1.DirectoryService/ConfirmDirectory'
const API_NAME = 'api.service.ares4.internal'

let authority: TestAuthority
let apiIdentity: TestIdentity
let listenerIdentity: TestIdentity
let authorizerIdentity: TestIdentity
beforeAll(async () => {
  authority = await TestAuthority.create()
  apiIdentity = await authority.identity(API_NAME)
  listenerIdentity = await authority.identity('listener.service.ares4.internal')
  authorizerIdentity = await authority.identity('authorizer.service.ares4.internal')
})

/** What the two methods do is set by each test. */
let ingest: (request: IngestRequest) => Promise<IngestResponse>
let watch: (signal: AbortSignal) => AsyncIterable<WatchDirectoryResponse>

const lines: string[] = []
const logger = createLogger({
  service: 'test',
  stream: new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  }),
})
let metrics = createMetrics('test')
let server: GrpcServer
const clients: Client[] = []

beforeEach(async () => {
  lines.length = 0
  metrics = createMetrics('test')
  ingest = async () => IngestResponse.fromPartial({})
  watch = heartbeats
  server = await serve()
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.close()
  await server.stop(100)
})

function serve(more: Partial<GrpcServerOptions> = {}): Promise<GrpcServer> {
  const telemetry: TelemetryServiceServer = {
    ingest: unaryHandler((request) => ingest(request)),
    reportLoad: unaryHandler(async () => ({ listeners: 1, hasKeeper: false })),
  }
  const directory: DirectoryServiceServer = {
    watchDirectory: streamHandler((_request, signal) => watch(signal)),
    confirmDirectory: unaryHandler(async () => ({})),
  }
  return startGrpcServer({
    identity: apiIdentity,
    bind: { host: '127.0.0.1', port: 0 },
    logger,
    metrics,
    services: [
      { definition: TelemetryServiceService, implementation: telemetry },
      { definition: DirectoryServiceService, implementation: directory },
    ],
    allow: {
      [INGEST]: ['listener'],
      [REPORT_LOAD]: ['listener'],
      [WATCH]: ['authorizer'],
      [CONFIRM]: ['authorizer'],
    },
    ...more,
  })
}

function connect<C extends Client>(
  client: Parameters<typeof createGrpcClient<C>>[0]['client'],
  identity: TestIdentity,
  serverName = API_NAME,
): C {
  const made = createGrpcClient({ client, address: `127.0.0.1:${server.port}`, identity, serverName, metrics })
  clients.push(made)
  return made
}

async function* heartbeats(signal: AbortSignal): AsyncGenerator<WatchDirectoryResponse> {
  for (let version = 1n; !signal.aborted; version++) {
    yield { event: { $case: 'heartbeat', value: { version } } }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const send = (client: TelemetryServiceClient, deadlineMs = 5_000, signal?: AbortSignal) =>
  unary(client, client.ingest, IngestRequest.fromPartial({ batchId: 'b' }), { deadlineMs, signal })
const failure = (call: Promise<unknown>): Promise<ServiceError> =>
  call.then(
    () => Promise.reject(new Error('it succeeded')),
    (error: ServiceError) => error,
  )

/** The certificate that a new handshake shows. */
async function shownSerial(): Promise<string> {
  const { chainPem, keyPem, caPem } = listenerIdentity.current()
  const socket = tls.connect({
    port: server.port,
    host: '127.0.0.1',
    servername: API_NAME,
    ALPNProtocols: ['h2'],
    ca: caPem,
    cert: chainPem,
    key: keyPem,
  })
  await once(socket, 'secureConnect')
  const shown = socket.getPeerX509Certificate()
  socket.destroy()
  return shown ? serialOf(shown) : 'none'
}

describe('who may call', () => {
  it('lets a service on the list of the method in', async () => {
    await expect(send(connect(TelemetryServiceClient, listenerIdentity))).resolves.toEqual(
      IngestResponse.fromPartial({}),
    )
  })

  it('refuses a service that is on the list of another method only, before the method runs', async () => {
    const work = jest.fn()
    ingest = work
    const error = await failure(send(connect(TelemetryServiceClient, authorizerIdentity)))
    expect(error.code).toBe(status.PERMISSION_DENIED)
    expect(error.details).toBe(`authorizer.service.ares4.internal may not call ${INGEST}`)
    expect(work).not.toHaveBeenCalled()
  })

  it.each(['d1.device.ares4.internal', 'broker.ares4.internal', 'listener.service.ares4.internal.evil'])(
    'refuses %s, whose certificate is of our CA',
    async (name) => {
      const error = await failure(send(connect(TelemetryServiceClient, await authority.identity(name))))
      expect(error.code).toBe(status.PERMISSION_DENIED)
    },
  )

  it('refuses a stream as well', async () => {
    const stream = connect(DirectoryServiceClient, listenerIdentity).watchDirectory({
      fromVersion: 0n,
      epoch: '',
      watchId: '',
    })
    const [error] = (await once(stream, 'error')) as [ServiceError]
    expect(error.code).toBe(status.PERMISSION_DENIED)
  })

  it('does not let a certificate of another CA finish the handshake', async () => {
    const other = await (await TestAuthority.create('Other')).identity('listener.service.ares4.internal')
    // It trusts our CA, so that only the server can refuse.
    other.renew({ ...other.current(), caPem: authority.caPem })
    const error = await failure(send(connect(TelemetryServiceClient, other), 1_000))
    expect([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]).toContain(error.code)
  })

  it('does not talk to a server of another name', async () => {
    const client = connect(TelemetryServiceClient, listenerIdentity, 'listener.service.ares4.internal')
    const error = await failure(send(client, 1_000))
    expect(error.code).toBe(status.UNAVAILABLE)
  })

  it('does not speak TLS 1.1', async () => {
    const socket = tls.connect({
      port: server.port,
      host: '127.0.0.1',
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
      rejectUnauthorized: false,
    })
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
    expect(error.code).toMatch(/ERR_SSL|ECONNRESET/)
  })

  it('is decided for every method, or the server does not start', async () => {
    await expect(serve({ allow: { [INGEST]: ['listener'], [REPORT_LOAD]: ['listener'] } })).rejects.toThrow(
      `allow does not say who may call ${WATCH}, ${CONFIRM}`,
    )
    await expect(
      serve({ allow: { [INGEST]: [], [REPORT_LOAD]: [], [WATCH]: [], [CONFIRM]: [], '/x/Y': [] } }),
    ).rejects.toThrow('what is not served: /x/Y')
  })
})

describe('errors', () => {
  it('of the domain reach the caller with status, message and code', async () => {
    ingest = async () => {
      throw new DomainError('precondition', 'device_disabled', 'the device is disabled')
    }
    const error = await failure(send(connect(TelemetryServiceClient, listenerIdentity)))
    expect([error.code, error.details, domainCodeOf(error)]).toEqual([
      status.FAILED_PRECONDITION,
      'the device is disabled',
      'device_disabled',
    ])
  })

  it('of any other kind become INTERNAL: details in the log under the request id, not in the answer', async () => {
    ingest = async () => {
      throw new Error('connection to db at 10.0.0.7 lost')
    }
    const error = await withRequestId('r-42', () => failure(send(connect(TelemetryServiceClient, listenerIdentity))))
    expect([error.code, error.details]).toEqual([status.INTERNAL, 'internal error'])
    expect(lines.join('')).toMatch(/"requestId":"r-42".*10\.0\.0\.7/)
  })

  it('of a stream are told alike', async () => {
    watch = async function* () {
      yield { event: { $case: 'heartbeat', value: { version: 1n } } }
      throw new Error('secret detail')
    }
    const stream = connect(DirectoryServiceClient, authorizerIdentity).watchDirectory({
      fromVersion: 0n,
      epoch: '',
      watchId: '',
    })
    stream.on('data', () => {})
    const [error] = (await once(stream, 'error')) as [ServiceError]
    expect([error.code, error.details]).toEqual([status.INTERNAL, 'internal error'])
  })
})

describe('a call', () => {
  it('carries the id of the request to the other side', async () => {
    let seen: string | undefined
    ingest = async () => {
      await Promise.resolve()
      seen = requestId()
      return IngestResponse.fromPartial({})
    }
    await withRequestId('r-7', () => send(connect(TelemetryServiceClient, listenerIdentity)))
    expect(seen).toBe('r-7')
  })

  it('ends at its deadline, and at the signal of the caller', async () => {
    ingest = () => new Promise(() => {})
    const client = connect(TelemetryServiceClient, listenerIdentity)
    expect((await failure(send(client, 200))).code).toBe(status.DEADLINE_EXCEEDED)
    const stopping = new AbortController()
    setTimeout(() => stopping.abort(), 50)
    expect((await failure(send(client, 10_000, stopping.signal))).code).toBe(status.CANCELLED)
  })

  it('is counted by method and status on both sides', async () => {
    await send(connect(TelemetryServiceClient, listenerIdentity))
    await failure(send(connect(TelemetryServiceClient, authorizerIdentity)))
    const text = await metrics.metrics()
    for (const side of ['server', 'client']) {
      for (const code of ['OK', 'PERMISSION_DENIED']) {
        expect(text).toContain(`ares_grpc_${side}_seconds_count{service="test",method="${INGEST}",code="${code}"} 1\n`)
      }
    }
  })

  it('larger than the limit is refused', async () => {
    await server.stop(0)
    server = await serve({ maxMessageBytes: 1_000 })
    const client = connect(TelemetryServiceClient, listenerIdentity)
    const request = IngestRequest.fromPartial({ batchId: 'x'.repeat(2_000) })
    const error = await failure(unary(client, client.ingest, request, { deadlineMs: 5_000 }))
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED)
  })

  it('finds the server again after it was away', async () => {
    const client = connect(TelemetryServiceClient, listenerIdentity)
    await send(client)
    const { port } = server
    await server.stop(0)
    expect((await failure(send(client, 1_000))).code).toBe(status.UNAVAILABLE)
    server = await serve({ bind: { host: '127.0.0.1', port } })
    await expect(
      unary(client, client.ingest, IngestRequest.fromPartial({}), { deadlineMs: 10_000, waitForReady: true }),
    ).resolves.toBeDefined()
  })
})

describe('a renewed certificate', () => {
  it('of the server is shown in new handshakes while an open stream and its connection go on', async () => {
    const versions: bigint[] = []
    const stream = connect(DirectoryServiceClient, authorizerIdentity).watchDirectory({
      fromVersion: 0n,
      epoch: '',
      watchId: '',
    })
    const failed = jest.fn()
    stream.on('error', failed)
    stream.on('data', ({ event }: WatchDirectoryResponse) => {
      if (event?.$case === 'heartbeat') versions.push(event.value.version)
    })
    await until(() => versions.length > 2)
    const before = apiIdentity.current().serial
    expect(await shownSerial()).toBe(before)

    apiIdentity.renew(await authority.leaf(API_NAME))
    expect(await shownSerial()).toBe(apiIdentity.current().serial)
    expect(apiIdentity.current().serial).not.toBe(before)

    const seen = versions.length
    await until(() => versions.length > seen + 5)
    expect(versions).toEqual(versions.map((_, index) => BigInt(index + 1)))
    expect(failed).not.toHaveBeenCalled()
    await send(connect(TelemetryServiceClient, listenerIdentity))
    stream.cancel()
  })

  it('of the client is used for its next connection, while the calls on the old one end as if nothing had been', async () => {
    const client = connect(TelemetryServiceClient, listenerIdentity)
    let release = () => {}
    const slow = new Promise<void>((resolve) => {
      release = resolve
    })
    let began = false
    ingest = async () => {
      began = true
      await slow
      return IngestResponse.fromPartial({})
    }
    const open = send(client, 20_000)
    await until(() => began)
    listenerIdentity.renew(await authority.leaf('listener.service.ares4.internal'))
    release()
    await open

    // A new client connection after the renewal: an old certificate that has ended would not get in.
    listenerIdentity.renew(
      await authority.leaf('listener.service.ares4.internal', { notAfter: new Date(Date.now() - 1_000) }),
    )
    await send(client) // the connection that is open stays in use
    expect([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]).toContain(
      (await failure(send(connect(TelemetryServiceClient, listenerIdentity), 1_000))).code,
    )
    listenerIdentity.renew(await authority.leaf('listener.service.ares4.internal'))
    await send(connect(TelemetryServiceClient, listenerIdentity))
  })

  it('does not cost a call when connections have a highest age', async () => {
    await server.stop(0)
    server = await serve({ maxConnectionAgeMs: 300 })
    const stream = connect(DirectoryServiceClient, authorizerIdentity).watchDirectory({
      fromVersion: 0n,
      epoch: '',
      watchId: '',
    })
    let last = 0n
    const failed = jest.fn()
    stream.on('error', failed)
    stream.on('data', ({ event }: WatchDirectoryResponse) => {
      if (event?.$case === 'heartbeat') last = event.value.version
    })
    const client = connect(TelemetryServiceClient, listenerIdentity)
    const end = Date.now() + 2_000
    let calls = 0
    for (; Date.now() < end; calls++) await send(client)
    expect(calls).toBeGreaterThan(10)
    expect(last).toBeGreaterThan(5n)
    expect(failed).not.toHaveBeenCalled()
    stream.cancel()
  })

  it('has no followers left when clients and server are closed', async () => {
    await send(connect(TelemetryServiceClient, listenerIdentity))
    expect(listenerIdentity.followers).toBe(1)
    for (const client of clients.splice(0)) client.close()
    await server.stop()
    await until(() => listenerIdentity.followers + apiIdentity.followers === 0)
  })
})

describe('the flow-control window', () => {
  it('of the server takes a whole batch, in a call and in all calls of a connection', async () => {
    const { chainPem, keyPem, caPem } = listenerIdentity.current()
    const session = http2.connect(`https://127.0.0.1:${server.port}`, {
      servername: API_NAME,
      ca: caPem,
      cert: chainPem,
      key: keyPem,
    })
    try {
      const [settings] = (await once(session, 'remoteSettings')) as [http2.Settings]
      expect(settings.initialWindowSize).toBe(FLOW_CONTROL_WINDOW_BYTES)
      await until(() => session.state.remoteWindowSize === FLOW_CONTROL_WINDOW_BYTES)
    } finally {
      session.destroy()
    }
  })
})

describe('a stopping server', () => {
  it('lets running calls end, takes no new ones, and ends the streams', async () => {
    const client = connect(TelemetryServiceClient, listenerIdentity)
    let release = () => {}
    let began = false
    ingest = async () => {
      began = true
      await new Promise<void>((resolve) => {
        release = resolve
      })
      return IngestResponse.fromPartial({ receipts: [{ deviceId: 'd1', sequences: [] }] })
    }
    const stream = connect(DirectoryServiceClient, authorizerIdentity).watchDirectory({
      fromVersion: 0n,
      epoch: '',
      watchId: '',
    })
    stream.on('data', () => {})
    const streamEnd = once(stream, 'error') as Promise<[ServiceError]>
    await once(stream, 'metadata')
    const running = send(client)
    await until(() => began)

    const stopped = server.stop(10_000)
    expect((await streamEnd)[0].code).toBe(status.UNAVAILABLE)
    expect((await failure(send(connect(TelemetryServiceClient, listenerIdentity), 500))).code).not.toBe(status.OK)
    release()
    expect((await running).receipts).toHaveLength(1)
    await stopped
  })

  it('cuts what does not end within its limit', async () => {
    ingest = () => new Promise(() => {})
    const running = failure(send(connect(TelemetryServiceClient, listenerIdentity), 20_000))
    await until(async () => (await metrics.metrics()).length > 0)
    await new Promise((resolve) => setTimeout(resolve, 100))
    const startedAt = Date.now()
    await server.stop(200)
    expect(Date.now() - startedAt).toBeLessThan(5_000)
    expect([status.UNAVAILABLE, status.CANCELLED]).toContain((await running).code)
  })
})
