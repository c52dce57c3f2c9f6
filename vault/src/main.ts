import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import {
  ConfigError,
  createLogger,
  createMetrics,
  Health,
  onShutdownSignal,
  runMain,
  startOpsServer,
} from '@ares/chassis'
import { VaultAgent } from './agent'
import { agentCredentialsFromDirectory } from './agent-credential'
import { bootstrap } from './bootstrap'
import { readAgentConfig, readBootstrapConfig, readRotationConfig, readTlsConfig } from './config'
import { ROTATION_PHASES, RotationRefused, rotateIntermediate } from './intermediate-rotation'
import { ensureServerCertificate } from './server-certificate'

const HELP = `Usage: node vault/dist/main.js COMMAND      settings come from the environment; X_FILE may name a file with the value of X

  tls         makes the Vault server's own certificate, before it starts; keeps a good one
              ARES_VAULT_TLS_DIR      gets ca.crt, server.crt, server.key
              ARES_VAULT_TLS_NAMES    default vault,localhost,127.0.0.1
              ARES_VAULT_TLS_GID      group that may read the key

  bootstrap   opens a Vault server, new or sealed, and sets up all that Ares needs; a second run changes nothing
              ARES_VAULT_ADDR, ARES_VAULT_CA_FILE
              ARES_VAULT_KEY_STORE    file for unseal key and bootstrap credential (0600): keep it safe, back it up
              ARES_VAULT_PUBLIC_ADDR  where others reach Vault for CRL and OCSP; default ARES_VAULT_ADDR
              ARES_CERTS_DIR          gets ca/full_chain_ca.crt, emqx/emqx.crt, emqx/emqx.key
              ARES_BROKER_NAMES       names and addresses under which devices reach the broker, comma-separated
              ARES_BROKER_GID         group that may read the broker's key and the API key file
              ARES_EMQX_API_KEY_PATH  EMQX's api_key.bootstrap_file
              ARES_AGENT_CREDENTIALS  directory for the agent's role-id and secret-id; ARES_AGENT_UID their owner

  agent       keeps the broker's certificate fresh and the services' credentials delivered, until it is stopped
              ARES_VAULT_ADDR, ARES_VAULT_CA_FILE, ARES_CERTS_DIR, ARES_BROKER_NAMES, ARES_BROKER_GID, ARES_OPS_BIND
              ARES_AGENT_CREDENTIALS  directory that bootstrap filled
              ARES_CREDENTIAL_TARGETS service=directory list, e.g. api=/run/credentials/api
              ARES_CREDENTIAL_UID     owner of what is delivered

  rotate-intermediate PHASE   replaces the intermediate CA while everything runs; each phase may be run again
              add                     makes the next intermediate; the CA bundle holds both
              switch                  from now on the new one issues; leaves move over as they are renewed
              retire                  stops the old one, and removes it when no leaf of it lives (exit code 3: not yet)
              ARES_VAULT_ADDR, ARES_VAULT_CA_FILE, ARES_VAULT_KEY_STORE, ARES_CERTS_DIR
              ARES_ROTATION_SETTLE    least age of the bundle before the switch, default 3m

All take ARES_LOG_LEVEL (error, warn, info, debug).
`

type Command = (env: NodeJS.ProcessEnv, parameter: string | undefined) => Promise<void>

const COMMANDS: Readonly<Record<string, Command>> = {
  tls: runTls,
  bootstrap: runBootstrap,
  agent: runAgent,
  'rotate-intermediate': runRotation,
}

runMain('vault', async () => {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { help: { type: 'boolean', short: 'h' } },
  })
  const [name = '', parameter, ...more] = positionals
  const command = COMMANDS[name]
  if (values.help) {
    process.stdout.write(HELP)
    return
  }
  if (!command || more.length > 0 || (parameter !== undefined && command !== runRotation)) {
    throw new ConfigError([`the command must be one of ${Object.keys(COMMANDS).join(', ')} (see --help)`])
  }
  await command(process.env, parameter)
})

async function runTls(env: NodeJS.ProcessEnv): Promise<void> {
  const config = readTlsConfig(env)
  const logger = createLogger({ service: 'vault-tls', level: config.ARES_LOG_LEVEL })
  const { made, certFile } = await ensureServerCertificate({
    dir: config.ARES_VAULT_TLS_DIR,
    names: config.ARES_VAULT_TLS_NAMES,
    keyGid: config.ARES_VAULT_TLS_GID,
  })
  logger.info(made ? 'made the certificate of the Vault server' : 'nothing to change', { certFile })
}

async function runBootstrap(env: NodeJS.ProcessEnv): Promise<void> {
  const config = readBootstrapConfig(env)
  const logger = createLogger({ service: 'vault-bootstrap', level: config.ARES_LOG_LEVEL })
  const { changes } = await bootstrap({
    address: config.ARES_VAULT_ADDR,
    caPem: await readCa(config.ARES_VAULT_CA_FILE),
    keyFile: config.ARES_VAULT_KEY_STORE,
    certsDir: config.ARES_CERTS_DIR,
    publicAddress: config.ARES_VAULT_PUBLIC_ADDR,
    brokerNames: config.ARES_BROKER_NAMES,
    brokerGid: config.ARES_BROKER_GID,
    emqxApiKeyFile: config.ARES_EMQX_API_KEY_PATH,
    agentCredentialDir: config.ARES_AGENT_CREDENTIALS,
    agentUid: config.ARES_AGENT_UID,
    logger,
  })
  logger.info(changes.length === 0 ? 'nothing to change' : 'done', { changes: changes.length })
}

async function runRotation(env: NodeJS.ProcessEnv, parameter: string | undefined): Promise<void> {
  const phase = ROTATION_PHASES.find((each) => each === parameter)
  if (!phase) throw new ConfigError([`the phase must be one of ${ROTATION_PHASES.join(', ')} (see --help)`])
  const config = readRotationConfig(env)
  const logger = createLogger({ service: 'vault-rotation', level: config.ARES_LOG_LEVEL })
  const result = await rotateIntermediate(phase, {
    address: config.ARES_VAULT_ADDR,
    caPem: await readCa(config.ARES_VAULT_CA_FILE),
    keyFile: config.ARES_VAULT_KEY_STORE,
    certsDir: config.ARES_CERTS_DIR,
    settleMs: config.ARES_ROTATION_SETTLE,
    logger,
  }).catch((error: unknown) => {
    if (error instanceof RotationRefused) return error
    throw error
  })
  if (result instanceof RotationRefused) {
    logger.error(`nothing was done: ${result.message}`, { phase })
    process.exitCode = 1
    return
  }
  const { changes, waitsFor } = result
  if (waitsFor) {
    logger.warn(`not finished: ${waitsFor}`, { phase })
    process.exitCode = 3
  } else logger.info(changes.length === 0 ? 'nothing to change' : 'done', { phase, changes: changes.length })
}

async function runAgent(env: NodeJS.ProcessEnv): Promise<void> {
  const config = readAgentConfig(env)
  const logger = createLogger({ service: 'vault-agent', level: config.ARES_LOG_LEVEL })
  const health = new Health()
  const metrics = createMetrics('vault-agent')
  // First, so that a wait for Vault can be seen from outside.
  const ops = await startOpsServer({ bind: config.ARES_OPS_BIND, health, metrics, logger })
  const agent = await VaultAgent.start({
    address: config.ARES_VAULT_ADDR,
    caPem: await readCa(config.ARES_VAULT_CA_FILE),
    credentials: agentCredentialsFromDirectory(config.ARES_AGENT_CREDENTIALS),
    certsDir: config.ARES_CERTS_DIR,
    brokerNames: config.ARES_BROKER_NAMES,
    brokerGid: config.ARES_BROKER_GID,
    targets: config.ARES_CREDENTIAL_TARGETS.map((target) => ({ ...target, uid: config.ARES_CREDENTIAL_UID })),
    logger,
    health,
    metrics,
  })
  logger.info('ready', { ports: { ops: ops.port } })
  await onShutdownSignal()
  await agent.stop()
  await ops.stop()
}

async function readCa(file: string | undefined): Promise<string | undefined> {
  return file === undefined ? undefined : await readFile(file, 'utf8')
}
