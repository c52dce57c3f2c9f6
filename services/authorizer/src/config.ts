import { type Bind, commonVariables, readEnvironment, variable } from '@ares/chassis'
import { z } from 'zod'

const settings = z.object({
  ...commonVariables,
  /** Where EMQX asks. */
  ARES_WEBHOOK_BIND: variable.bind().prefault('0.0.0.0:8443'),
  /** Where api asks for explanations. */
  ARES_GRPC_BIND: variable.bind().prefault('0.0.0.0:9092'),
  /** gRPC of api, host:port. */
  ARES_API_ADDRESS: variable.address(),
  /** Beyond this age of the directory every report of health says so, and a line is logged. */
  ARES_DIRECTORY_OLD_AFTER: variable.durationMs().prefault('1m'),
  /** `warn`: go on with what is known. `refuse`: no new connections; what is connected stays. */
  ARES_DIRECTORY_WHEN_OLD: z.enum(['warn', 'refuse']).default('warn'),
})

export interface AuthorizerConfig {
  readonly logLevel: string
  readonly opsBind: Bind
  readonly webhookBind: Bind
  readonly grpcBind: Bind
  readonly apiAddress: string
  readonly vaultAddress: string
  readonly vaultCaFile: string | undefined
  readonly vaultCredentials: string
  readonly caFile: string
  readonly directoryOldAfterMs: number
  readonly refuseWhenOld: boolean
}

/** @throws ConfigError that lists every problem */
export function readConfig(env: NodeJS.ProcessEnv): AuthorizerConfig {
  const values = readEnvironment(settings, env)
  return {
    logLevel: values.ARES_LOG_LEVEL,
    opsBind: values.ARES_OPS_BIND,
    webhookBind: values.ARES_WEBHOOK_BIND,
    grpcBind: values.ARES_GRPC_BIND,
    apiAddress: values.ARES_API_ADDRESS,
    vaultAddress: values.ARES_VAULT_ADDR,
    vaultCaFile: values.ARES_VAULT_CA_FILE,
    vaultCredentials: values.ARES_VAULT_CREDENTIALS,
    caFile: values.ARES_CA_FILE,
    directoryOldAfterMs: values.ARES_DIRECTORY_OLD_AFTER,
    refuseWhenOld: values.ARES_DIRECTORY_WHEN_OLD === 'refuse',
  }
}
