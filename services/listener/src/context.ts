import {
  createGrpcClient,
  createLogger,
  createMetrics,
  createVaultClient,
  credentialsFrom,
  Health,
  type LeafSource,
  type Logger,
  loadCaFile,
  ServiceIdentity,
  waitForFile,
} from '@ares/chassis'
import { serviceCommonName } from '@ares/proto'
import { CommandServiceClient } from '@ares/proto/commands/v1/commands'
import { DeviceServiceClient } from '@ares/proto/devices/v1/devices'
import { IngestClient } from '@ares/proto/ingest-codec'
import type { Registry } from 'prom-client'
import type { ListenerConfig } from './config'

/** What the parts of the listener share, built once. */
export interface ListenerContext {
  readonly config: ListenerConfig
  readonly logger: Logger
  readonly health: Health
  readonly metrics: Registry
  readonly identity: LeafSource & { stop(): Promise<void> }
  readonly api: {
    readonly telemetry: IngestClient
    readonly devices: DeviceServiceClient
    readonly commands: CommandServiceClient
  }
}

/**
 * Logs in at Vault, has a certificate made and checks what is about to be used.
 * @throws ServiceIdentity.create's errors, CertificateProblem for the CA file
 */
export async function createContext(config: ListenerConfig, signal?: AbortSignal): Promise<ListenerContext> {
  const logger = createLogger({ service: 'listener', level: config.logLevel })
  const health = new Health()
  const metrics = createMetrics('listener')
  const { address, caFile, credentials } = config.vault
  const vaultCaPem = caFile ? await waitForFile(caFile, { variable: 'ARES_VAULT_CA_FILE', logger, signal }) : undefined
  const identity = await ServiceIdentity.create({
    name: 'listener',
    vaultAddress: address,
    vaultCaPem,
    caPem: await loadCaFile(config.caFile, { logger, signal }),
    caFile: config.caFile,
    credentials: credentialsFrom(credentials, {
      client: createVaultClient({ address, caPem: vaultCaPem }),
      service: 'listener',
    }),
    logger,
    health,
    metrics,
    signal,
  })
  return { config, logger, health, metrics, identity, api: connectApi(config.apiAddress, identity) }
}

/** The clients of api's services. They connect when they are first used and reconnect by themselves. */
export function connectApi(address: string, identity: LeafSource): ListenerContext['api'] {
  const peer = { address, identity, serverName: serviceCommonName('api') }
  return {
    telemetry: createGrpcClient({ client: IngestClient, ...peer }),
    devices: createGrpcClient({ client: DeviceServiceClient, ...peer }),
    commands: createGrpcClient({ client: CommandServiceClient, ...peer }),
  }
}
