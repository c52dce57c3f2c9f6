import { type Bind, commonVariables, readEnvironment, variable } from '@ares/chassis'
import { z } from 'zod'

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
  /** Management API of the broker, to cut a client off. */
  readonly emqxApiUrl?: string
  /** Made when there is nobody yet. */
  readonly firstUser?: { readonly email: string; readonly password: string }
  /** Proxies in front of REST whose X-Forwarded-For is believed. */
  readonly trustedProxies: number
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
    emqxApiUrl: set.ARES_EMQX_API_URL,
    firstUser: email !== undefined && password !== undefined ? { email, password } : undefined,
    trustedProxies: set.ARES_TRUSTED_PROXIES,
  }
}

const schema = z.object({
  ...commonVariables,
  ARES_HTTP_BIND: variable.bind().prefault('0.0.0.0:8080'),
  ARES_GRPC_BIND: variable.bind().prefault('0.0.0.0:9090'),
  ARES_DATABASE_URL: variable.url(['postgresql:', 'postgres:']),
  ARES_LISTENER_ADDRESSES: variable.addresses().default([]),
  ARES_EMQX_API_URL: variable.url(['http:', 'https:']).optional(),
  ARES_FIRST_USER_EMAIL: z.email().optional(),
  ARES_FIRST_USER_PASSWORD: z.string().min(10, 'must have at least 10 characters').optional(),
  ARES_TRUSTED_PROXIES: variable.integer({ min: 0, max: 10 }).prefault('0'),
})
