import { type Bind, commonVariables, readEnvironment, variable } from '@ares/chassis'
import { z } from 'zod'
import { LONGEST_DEVICE_LIFE_MS } from './features/certificates/pki.vault'
import type { GovernorSettings } from './features/governor/governor'
import type { BudgetLimits } from './features/telemetry/device-budget'

/** Everything that api is told from outside. */
export interface ApiConfig {
  readonly logLevel: string
  readonly opsBind: Bind
  /** REST. */
  readonly httpBind: Bind
  readonly grpcBind: Bind
  readonly databaseUrl: string
  readonly vaultAddress: string
  readonly vaultCaFile?: string
  readonly vaultCredentials: string
  readonly caFile: string
  /** gRPC of the listeners, host:port: where commands go. */
  readonly listenerAddresses: readonly string[]
  /** gRPC of the authorizers, host:port: where decisions are explained. */
  readonly authorizerAddresses: readonly string[]
  /** Management API of the broker, to cut a client off. */
  readonly emqxApiUrl?: string
  /** Made when there is nobody yet. */
  readonly firstUser?: { readonly email: string; readonly password: string }
  /** Proxies in front of REST whose X-Forwarded-For is believed. */
  readonly trustedProxies: number
  /** How long a device's certificate lives. */
  readonly deviceCertificateLifeMs: number
  /** What one device may have stored; undefined: without a limit. */
  readonly deviceBudget?: BudgetLimits
  /** undefined: the rate of the devices stays as the broker is configured. */
  readonly governor?: GovernorSettings
}

/** @throws ConfigError with every problem */
export function readConfig(env: NodeJS.ProcessEnv): ApiConfig {
  const set = readEnvironment(schema, env)
  const { ARES_FIRST_USER_EMAIL: email, ARES_FIRST_USER_PASSWORD: password } = set
  return {
    logLevel: set.ARES_LOG_LEVEL,
    opsBind: set.ARES_OPS_BIND,
    httpBind: set.ARES_HTTP_BIND,
    grpcBind: set.ARES_GRPC_BIND,
    databaseUrl: set.ARES_DATABASE_URL,
    vaultAddress: set.ARES_VAULT_ADDR,
    vaultCaFile: set.ARES_VAULT_CA_FILE,
    vaultCredentials: set.ARES_VAULT_CREDENTIALS,
    caFile: set.ARES_CA_FILE,
    listenerAddresses: set.ARES_LISTENER_ADDRESSES,
    authorizerAddresses: set.ARES_AUTHORIZER_ADDRESSES,
    emqxApiUrl: set.ARES_EMQX_API_URL,
    firstUser: email !== undefined && password !== undefined ? { email, password } : undefined,
    trustedProxies: set.ARES_TRUSTED_PROXIES,
    deviceCertificateLifeMs: set.ARES_DEVICE_CERTIFICATE_LIFE,
    governor: set.ARES_GOVERNOR ? { floor: set.ARES_GOVERNOR_FLOOR, maximum: set.ARES_GOVERNOR_MAXIMUM } : undefined,
    deviceBudget:
      set.ARES_DEVICE_ROWS_PER_SECOND === 0
        ? undefined
        : { ratePerSecond: set.ARES_DEVICE_ROWS_PER_SECOND, burst: set.ARES_DEVICE_ROWS_BURST },
  }
}

/** Half of it is what a device has for its renewal. */
const SHORTEST_DEVICE_LIFE_MS = 30_000

const schema = z.object({
  ...commonVariables,
  ARES_HTTP_BIND: variable.bind().prefault('0.0.0.0:8080'),
  ARES_GRPC_BIND: variable.bind().prefault('0.0.0.0:9090'),
  ARES_DATABASE_URL: variable.url(['postgresql:', 'postgres:']),
  ARES_LISTENER_ADDRESSES: variable.addresses().default([]),
  ARES_AUTHORIZER_ADDRESSES: variable.addresses().default([]),
  ARES_EMQX_API_URL: variable.url(['http:', 'https:']).optional(),
  ARES_FIRST_USER_EMAIL: z.email().optional(),
  ARES_FIRST_USER_PASSWORD: z.string().min(10, 'must have at least 10 characters').optional(),
  ARES_TRUSTED_PROXIES: variable.integer({ min: 0, max: 10 }).prefault('0'),
  /** A device renews from half of it on; Vault's role `device` allows 30 days. Shorter than an hour is for tests. */
  ARES_DEVICE_CERTIFICATE_LIFE: variable
    .durationMs()
    .pipe(
      z.number().min(SHORTEST_DEVICE_LIFE_MS, 'must be 30s or more').max(LONGEST_DEVICE_LIFE_MS, 'must be 30d or less'),
    )
    .prefault('30d'),
  /** false: nobody slows the devices when the store is slow; the broker's own rate stands. */
  ARES_GOVERNOR: variable.boolean().prefault('true'),
  /** Messages a second of all devices together that are let in whatever happens. Keepalives count: 10,000 devices with one
   *  a minute are 167 a second. What comes in without a listener waits in the session of the last one, which the broker
   *  keeps for 90 s (emqx.conf). */
  ARES_GOVERNOR_FLOOR: variable.integer({ min: 1, max: 1_000_000 }).prefault('500'),
  /** Messages a second at most. Default: what the broker is configured with. */
  ARES_GOVERNOR_MAXIMUM: variable.integer({ min: 1, max: 1_000_000 }).optional(),
  /** Rows a second that one device may have stored for long; 0: no limit. The broker lets a device say 50 messages a second. */
  ARES_DEVICE_ROWS_PER_SECOND: variable.integer({ min: 0, max: 1_000_000 }).prefault('50'),
  /** Rows that it may have saved up: the backlog after an outage. 50,000 is 14 h at a row a second. */
  ARES_DEVICE_ROWS_BURST: variable.integer({ min: 1_000, max: 100_000_000 }).prefault('50000'),
})
