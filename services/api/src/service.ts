import {
  createVaultClient,
  credentialsFrom,
  type GrpcServer,
  type LeafSource,
  loadCaFile,
  type OpsServer,
  ServiceIdentity,
  startGrpcServer,
  startOpsServer,
  waitForFile,
} from '@ares/chassis'
import { EmqxManagement } from './broker/emqx-management'
import type { ApiConfig } from './config'
import { type ApiContext, createContext } from './context'
import { dataRooms } from './data-rooms'
import { PersonChangeStore } from './features/access/person-changes.store'
import { PersonSessions } from './features/access/person-sessions'
import { VaultPki } from './features/certificates/pki.vault'
import { VaultInventory } from './features/pki/pki-inventory.vault'
import { fleetRooms } from './fleet-rooms'
import { AccessControl } from './http/access'
import { httpApplication } from './http/app'
import { type HttpServer, startHttpServer } from './http/server'
import { migrate } from './migrate'
import { peopleRooms } from './people-rooms'
import { revocationRooms } from './revocation-rooms'
import type { Rooms } from './rooms'

/** Where a started service is reached. */
export interface ApiPorts {
  readonly http: number
  readonly grpc: number
  readonly ops: number
}

/** api: REST for people, gRPC for the listener and the authorizer, and the only owner of the data. */
export class ApiService {
  private readonly stops: Array<() => Promise<void>> = []

  private constructor(private readonly context: ApiContext) {}

  static async create(config: ApiConfig): Promise<ApiService> {
    return new ApiService(createContext(config))
  }

  /** @throws when something it needs is missing; what was started by then is stopped again */
  async start(): Promise<ApiPorts> {
    try {
      return await this.startAll()
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** Answers what was begun, then lets go of everything, the last started first. */
  async stop(): Promise<void> {
    this.context.health.set('started', false, 'api is stopping')
    this.context.stopping.abort()
    for (const stop of this.stops.splice(0).reverse()) await stop()
  }

  private async startAll(): Promise<ApiPorts> {
    const { config, logger, metrics, health, database } = this.context
    health.set('started', false, 'api is starting')
    const ops = await this.keep<OpsServer>(startOpsServer({ bind: config.opsBind, health, metrics, logger }))
    this.stops.push(() => database.close())
    const identity = await this.identity()
    await migrate({ connectionString: config.databaseUrl, log: (line) => logger.info(line) })
    const pki = new VaultPki(identity.vault, () => identity.current().caPem, config.deviceCertificateLifeMs)
    const broker = new EmqxManagement({ url: config.emqxApiUrl, vault: identity.vault })
    await broker.prepare()
    const people = peopleRooms(this.context, pki)
    const data = dataRooms(this.context, identity, broker)
    const inventory = new VaultInventory(identity.vault)
    const revocation = revocationRooms(this.context, { pki, broker, directory: data.directory, inventory })
    const caPem = () => identity.current().caPem
    const fleet = fleetRooms(this.context, { broker, caPem, sources: revocation.findings })
    const all = [people, data, revocation, fleet]
    for (const rooms of all) {
      this.stops.push(() => rooms.stop())
      await rooms.start()
    }
    const { notifications } = this.context
    const changes = new PersonChangeStore(database.pool)
    const sessions = new PersonSessions({ changes, broker, directory: data.directory, notifications, logger })
    this.stops.push(() => sessions.stop())
    await sessions.start()
    const grpc = await this.keep<GrpcServer>(this.startGrpc(identity, all))
    const http = await this.keep<HttpServer>(
      startHttpServer(
        config.httpBind,
        httpApplication({
          routes: all.flatMap(({ routes }) => [...routes]),
          authenticate: people.authenticate,
          access: new AccessControl(database.pool),
          logger,
          metrics,
          trustedProxies: config.trustedProxies,
        }),
      ),
    )
    health.set('started', true)
    const ports = { http: http.port, grpc: grpc.port, ops: ops.port }
    logger.info('ready', { ports })
    return ports
  }

  private async identity(): Promise<ServiceIdentity> {
    const { config, logger, health, metrics, stopping } = this.context
    const { vaultAddress, vaultCaFile } = config
    const wait = { logger, signal: stopping.signal }
    const vaultCaPem = vaultCaFile && (await waitForFile(vaultCaFile, { ...wait, variable: 'ARES_VAULT_CA_FILE' }))
    const caPem = await loadCaFile(config.caFile, wait)
    const client = createVaultClient({ address: vaultAddress, caPem: vaultCaPem })
    this.stops.push(async () => client.close())
    return this.keep(
      ServiceIdentity.create({
        name: 'api',
        vaultAddress,
        vaultCaPem,
        caPem,
        caFile: config.caFile,
        credentials: credentialsFrom(config.vaultCredentials, { client, service: 'api' }),
        logger,
        health,
        metrics,
        signal: stopping.signal,
      }),
    )
  }

  private startGrpc(identity: LeafSource, rooms: readonly Rooms[]): Promise<GrpcServer> {
    const { config, logger, metrics } = this.context
    return startGrpcServer({
      identity,
      bind: config.grpcBind,
      logger,
      metrics,
      services: rooms.flatMap(({ rpc }) => [...rpc]),
      allow: Object.assign({}, ...rooms.map(({ allow }) => allow)),
    })
  }

  private async keep<Part extends { stop(): Promise<void> }>(starting: Promise<Part>): Promise<Part> {
    const part = await starting
    this.stops.push(() => part.stop())
    return part
  }
}
