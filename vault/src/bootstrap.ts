import { isIP } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createVaultClient, type Logger, type VaultClient, VaultError } from '@ares/chassis'
import { ensureAgentCredential } from './agent-credential'
import { ensureAppRoleAuth, loginForBootstrap } from './bootstrap-credential'
import { ensureBrokerCertificate } from './broker-certificate'
import { CertsVolume } from './certs-volume'
import { ensureEmqxManagementKey, writeEmqxApiKeyFile } from './emqx-management-key'
import { openVault } from './opening'
import { ensurePki, readCertificateAuthorities } from './pki'
import { APPROLE_NAMES, ensureAppRole, ensurePolicy } from './policies'
import { Setup } from './setup'

export interface BootstrapOptions {
  readonly address: string
  /** CA of the Vault server's own certificate. */
  readonly caPem?: string
  /** See VaultKeys; made when the server is new. Never in the certs volume, never in Vault's own data. */
  readonly keyFile: string
  readonly certsDir: string
  /** Where others reach Vault for CRL and OCSP, written into certificates; default `address`. */
  readonly publicAddress?: string
  /** DNS names and IP addresses under which devices reach the broker, beyond `broker.ares4.internal, emqx, localhost`. */
  readonly brokerNames?: readonly string[]
  /** Group of the broker's process: gets read access to the key. */
  readonly brokerGid?: number
  /** EMQX's `api_key.bootstrap_file`; left out, none is written. */
  readonly emqxApiKeyFile?: string
  /** Where the certificate agent of compose finds role-id and secret-id; left out, none are written. */
  readonly agentCredentialDir?: string
  /** Owner of the agent's credential, when it is not this process's user. */
  readonly agentUid?: number
  readonly logger?: Pick<Logger, 'info' | 'warn'>
  readonly signal?: AbortSignal
}

/**
 * Brings a Vault server, new or not, to the state that Ares needs: open, PKI, roles, policies, AppRoles, EMQX's management
 * key; and the certs volume with CA bundle and broker certificate. Over HTTP only. May be cut off anywhere and run again.
 * @returns what was changed; a second run changes nothing and returns an empty list
 */
export async function bootstrap(options: BootstrapOptions): Promise<{ readonly changes: readonly string[] }> {
  const connection = { address: options.address, caPem: options.caPem }
  const opening = createVaultClient({ ...connection, signal: options.signal })
  const changes: string[] = []
  try {
    changes.push(...(await openVault({ vault: opening, keyFile: options.keyFile, signal: options.signal })))
  } finally {
    opening.close()
  }
  for (const change of changes) options.logger?.info('changed', { change })

  const vault = await loginForBootstrap(connection, options.keyFile)
  try {
    const setup = new Setup(vault, {
      change: (change) => options.logger?.info('changed', { change }),
      warning: (warning) => options.logger?.warn('Vault ignored something', { warning }),
    })
    await ensureVault(setup, options)
    await ensureFiles(setup, options)
    return { changes: [...changes, ...setup.changes] }
  } finally {
    // Left alone it would live for an hour.
    await vault.revokeSelf().catch(() => {})
    vault.close()
  }
}

async function ensureVault(setup: Setup, options: BootstrapOptions): Promise<void> {
  await ensureMounts(setup)
  await ensureAppRoleAuth(setup)
  const brokerNames = (options.brokerNames ?? []).filter((name) => !isIP(name))
  await ensurePki(setup, { publicAddress: options.publicAddress ?? options.address, brokerNames })
  for (const name of APPROLE_NAMES) {
    await ensurePolicy(setup, name)
    await ensureAppRole(setup, name)
  }
}

async function ensureFiles(setup: Setup, options: BootstrapOptions): Promise<void> {
  const { vault } = setup
  const volume = new CertsVolume({ dir: options.certsDir, keyGid: options.brokerGid })
  setup.record(await volume.ensureDirectories())
  const ca = await readCertificateAuthorities(vault)
  setup.record(await volume.writeCa(ca.rootPem, ca.intermediatePems))
  setup.record((await ensureBrokerCertificate({ vault, volume, externalNames: options.brokerNames })).changes)

  const key = await ensureEmqxManagementKey(setup)
  if (options.emqxApiKeyFile) {
    setup.record(await writeEmqxApiKeyFile(options.emqxApiKeyFile, key, options.brokerGid))
  }
  if (options.agentCredentialDir) {
    setup.record(await ensureAgentCredential(vault, options.agentCredentialDir, options.agentUid))
  }
}

async function ensureMounts(setup: Setup): Promise<void> {
  const present = (await setup.vault.read('sys/mounts'))?.data ?? {}
  const mounts = {
    // Without max_lease_ttl a CA is cut to 32 days, with no more than a warning.
    pki: { type: 'pki', config: { max_lease_ttl: '87600h' } },
    pki_int: { type: 'pki', config: { max_lease_ttl: '43800h' } },
    kv: { type: 'kv', options: { version: '2' } },
  }
  for (const [name, body] of Object.entries(mounts)) {
    if (present[`${name}/`]) continue
    await setup.change(`mount ${name}`, () => setup.vault.write(`sys/mounts/${name}`, body))
    if (name === 'kv') await untilUpgraded(setup.vault)
  }
}

/** HashiCorp Vault refuses the first calls on a fresh KV v2 mount while it sets it up. */
async function untilUpgraded(vault: VaultClient): Promise<void> {
  const end = Date.now() + 10_000
  for (;;) {
    try {
      await vault.read('kv/data/ares/none')
      return
    } catch (error) {
      const upgrading = error instanceof VaultError && /upgrading/i.test(error.message)
      if (!upgrading || Date.now() > end) throw error
      await sleep(100)
    }
  }
}
