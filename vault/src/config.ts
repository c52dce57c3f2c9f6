import { readEnvironment, variable } from '@ares/chassis'
import { SERVICE_NAMES } from '@ares/proto'
import { z } from 'zod'
import type { CredentialTarget } from './credential-deliverer'

const connection = {
  ARES_LOG_LEVEL: variable.logLevel().default('info'),
  ARES_VAULT_ADDR: variable.url(['https:', 'http:']),
  /** CA of the Vault server's own certificate. */
  ARES_VAULT_CA_FILE: variable.file().optional(),
}

const broker = {
  ARES_CERTS_DIR: variable.path(),
  /** DNS names and IP addresses under which devices reach the broker from outside. */
  ARES_BROKER_NAMES: variable.list().prefault(''),
  /** Group of the broker's process, for read access to the key. */
  ARES_BROKER_GID: variable.integer({ min: 0 }).optional(),
}

const schemas = {
  tls: z.object({
    ARES_LOG_LEVEL: connection.ARES_LOG_LEVEL,
    /** Gets ca.crt, server.crt and server.key. */
    ARES_VAULT_TLS_DIR: variable.path(),
    ARES_VAULT_TLS_NAMES: variable.list().prefault('vault,localhost,127.0.0.1'),
    /** Group of the server's process, for read access to its key. */
    ARES_VAULT_TLS_GID: variable.integer({ min: 0 }).optional(),
  }),
  bootstrap: z.object({
    ...connection,
    ...broker,
    /** Unseal key and bootstrap credential, 0600. Whoever reads it owns everything. */
    ARES_VAULT_KEY_STORE: variable.path(),
    /** Where others reach Vault for CRL and OCSP; default ARES_VAULT_ADDR. */
    ARES_VAULT_PUBLIC_ADDR: variable.url().optional(),
    ARES_EMQX_API_KEY_PATH: variable.path().optional(),
    /** Directory for role-id and secret-id of the agent. */
    ARES_AGENT_CREDENTIALS: variable.path().optional(),
    ARES_AGENT_UID: variable.integer({ min: 0 }).optional(),
  }),
  rotation: z.object({
    ...connection,
    ARES_CERTS_DIR: variable.path(),
    ARES_VAULT_KEY_STORE: variable.path(),
    /** How long everybody has had the new bundle before the switch; EMQX reads it every two minutes. */
    ARES_ROTATION_SETTLE: variable.durationMs().prefault('3m'),
  }),
  agent: z.object({
    ...connection,
    ...broker,
    ARES_OPS_BIND: variable.bind().prefault('127.0.0.1:0'),
    ARES_AGENT_CREDENTIALS: variable.path(),
    /** `service=directory` list, e.g. `api=/run/credentials/api,listener=/run/credentials/listener-1`. */
    ARES_CREDENTIAL_TARGETS: variable.list().prefault('').transform(targets),
    /** Owner of the delivered files, when it is not the agent's own user. */
    ARES_CREDENTIAL_UID: variable.integer({ min: 0 }).optional(),
  }),
}

export const readTlsConfig = (env: NodeJS.ProcessEnv) => readEnvironment(schemas.tls, env)
export const readBootstrapConfig = (env: NodeJS.ProcessEnv) => readEnvironment(schemas.bootstrap, env)
export const readRotationConfig = (env: NodeJS.ProcessEnv) => readEnvironment(schemas.rotation, env)
export const readAgentConfig = (env: NodeJS.ProcessEnv) => readEnvironment(schemas.agent, env)

function targets(items: readonly string[], context: z.RefinementCtx): CredentialTarget[] {
  return items.flatMap((item) => {
    const [name, directory] = item.split('=')
    const service = SERVICE_NAMES.find((known) => known === name)
    if (service && directory) return [{ service, directory }]
    context.addIssue({ code: 'custom', message: `"${item}" must be ${SERVICE_NAMES.join('|')}=<directory>` })
    return []
  })
}
