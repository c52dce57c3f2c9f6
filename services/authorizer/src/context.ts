import { readFile } from 'node:fs/promises'
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
} from '@ares/chassis'
import { serviceCommonName } from '@ares/proto'
import { AdmissionServiceClient } from '@ares/proto/directory/v1/admission'
import { DirectoryServiceClient } from '@ares/proto/directory/v1/directory'
import type { Registry } from 'prom-client'
import type { AuthorizerConfig } from './config'
import { AdmissionJournal } from './journal/admission-journal'
import { DirectoryReplica } from './replica/directory-replica'
import { AdmissionMetrics } from './webhook/admission-metrics'

/** What the parts of the authorizer share, built once. */
export interface AuthorizerContext {
  readonly config: AuthorizerConfig
  readonly logger: Logger
  readonly health: Health
  readonly registry: Registry
  readonly metrics: AdmissionMetrics
  readonly replica: DirectoryReplica
  readonly identity: LeafSource
  readonly journal: AdmissionJournal
  readonly api: { readonly directory: DirectoryServiceClient; readonly admissions: AdmissionServiceClient }
  /** Ends what has a life of its own. */
  close(): Promise<void>
}

/** @param given another identity than Vault's, another logger, another clock for the age of the directory: for tests */
export async function createContext(
  config: AuthorizerConfig,
  signal: AbortSignal,
  given: { readonly identity?: LeafSource; readonly logger?: Logger; readonly clock?: () => number } = {},
): Promise<AuthorizerContext> {
  const logger = given.logger ?? createLogger({ service: 'authorizer', level: config.logLevel })
  const health = new Health()
  const registry = createMetrics('authorizer')
  const replica = new DirectoryReplica(given.clock)
  const journal = new AdmissionJournal()
  const metrics = new AdmissionMetrics(registry, replica, journal)
  const own = given.identity
    ? undefined
    : await identityFromVault(config, { logger, health, metrics: registry, signal })
  const identity = given.identity ?? own?.identity
  if (!identity) throw new Error('there is no identity')
  const peer = { address: config.apiAddress, identity, serverName: serviceCommonName('api'), metrics: registry }
  const api = {
    directory: createGrpcClient({ ...peer, client: DirectoryServiceClient }),
    admissions: createGrpcClient({ ...peer, client: AdmissionServiceClient }),
  }
  return {
    config,
    logger,
    health,
    registry,
    metrics,
    replica,
    journal,
    identity,
    api,
    async close() {
      api.directory.close()
      api.admissions.close()
      await own?.stop()
    },
  }
}

async function identityFromVault(
  config: AuthorizerConfig,
  parts: Pick<Parameters<typeof ServiceIdentity.create>[0], 'logger' | 'health' | 'metrics' | 'signal'>,
): Promise<{ identity: ServiceIdentity; stop(): Promise<void> }> {
  const vaultCaPem = config.vaultCaFile ? await readFile(config.vaultCaFile, 'utf8') : undefined
  const caPem = await loadCaFile(config.caFile, { signal: parts.signal, logger: parts.logger })
  const login = createVaultClient({ address: config.vaultAddress, caPem: vaultCaPem, signal: parts.signal })
  const identity = await ServiceIdentity.create({
    name: 'authorizer',
    vaultAddress: config.vaultAddress,
    vaultCaPem,
    caPem,
    caFile: config.caFile,
    credentials: credentialsFrom(config.vaultCredentials, { client: login, service: 'authorizer' }),
    ...parts,
  })
  return {
    identity,
    async stop() {
      await identity.stop()
      login.close()
    },
  }
}
