import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type CredentialSource, createVaultClient, type VaultClient } from '@ares/chassis'
import type { ServiceName } from '@ares/proto'
import { findVaultBinary } from '../binary'
import { bootstrap } from '../bootstrap'
import { issueSecretId, loginForBootstrap, type VaultConnection } from '../bootstrap-credential'
import { openVault } from '../opening'
import { startVaultServer, type VaultServer } from '../server'
import { readVaultKeys } from '../vault-keys'
import { issueWrappedSecretId } from '../wrapped-secret-id'

export interface TestVault {
  readonly address: string
  readonly caPem: string
  readonly caFile: string
  /** The certs volume, as design section 3 has it. */
  readonly certsDir: string
  readonly keyFile: string
  /** Of the server: data/, tls/, server.log. */
  readonly serverDir: string
  readonly emqxApiKeyFile: string
  readonly unsealKey: string
  readonly server: VaultServer
  /** Logged in with the bootstrap credential: may do everything. */
  readonly adminClient: VaultClient
  /** Fresh credentials for each login, through a wrapping token as in real life. */
  credentials(service: ServiceName): CredentialSource
  /** A client that is logged in as a service. The caller closes it. */
  clientOf(service: ServiceName): Promise<VaultClient>
  seal(): Promise<void>
  /** Resolves when it serves again. */
  unseal(): Promise<void>
  stop(): Promise<void>
}

/**
 * A real, bootstrapped Vault server in a temporary folder, on free ports of loopback. About 3 s; one per test file is
 * enough. Always stop it.
 */
export async function startTestVault(options: { readonly brokerNames?: readonly string[] } = {}): Promise<TestVault> {
  const binary = await findVaultBinary({ onProgress: (line) => process.stderr.write(`${line}\n`) })
  const dir = await mkdtemp(path.join(tmpdir(), 'ares-vault-'))
  const serverDir = path.join(dir, 'vault')
  const certsDir = path.join(dir, 'certs')
  const emqxApiKeyFile = path.join(dir, 'emqx', 'api-key')
  const server = await startVaultServer({ binary, dir: serverDir })
  try {
    const { address, caPem, caFile, keyFile } = server
    const connection = { address, caPem }
    await bootstrap({ ...connection, keyFile, certsDir, emqxApiKeyFile, brokerNames: options.brokerNames })
    const adminClient = await loginForBootstrap(connection, keyFile)
    const keys = await readVaultKeys(keyFile)

    const credentials = (service: ServiceName): CredentialSource => ({
      async next() {
        const { roleId, wrapToken } = await issueWrappedSecretId(adminClient, service)
        const opener = createVaultClient(connection)
        try {
          const { data } = await opener.unwrap(wrapToken)
          return { roleId, secretId: String(data.secret_id) }
        } finally {
          opener.close()
        }
      },
    })
    return {
      address,
      caPem,
      caFile,
      certsDir,
      keyFile,
      serverDir,
      emqxApiKeyFile,
      unsealKey: keys?.unsealKey ?? '',
      server,
      adminClient,
      credentials,
      async clientOf(service) {
        const { roleId, secretId } = await credentials(service).next()
        const client = createVaultClient(connection)
        client.token = (await client.login(roleId, secretId)).token
        return client
      },
      seal: () => seal(connection, adminClient),
      async unseal() {
        const client = createVaultClient(connection)
        await openVault({ vault: client, keyFile })
        client.close()
      },
      async stop() {
        adminClient.close()
        await server.stop()
        await rm(dir, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await server.stop()
    await rm(dir, { recursive: true, force: true })
    throw error
  }
}

/** Nobody's policy lets them seal; whoever writes policies can give himself any right. */
async function seal(connection: VaultConnection, admin: VaultClient): Promise<void> {
  const policy = 'path "sys/seal" { capabilities = ["update", "sudo"] }'
  await admin.write('sys/policies/acl/sealer', { policy })
  await admin.write('auth/approle/role/sealer', { token_policies: ['sealer'], token_no_default_policy: true })
  const { roleId, secretId } = await issueSecretId(admin, 'sealer')
  const sealer = createVaultClient(connection)
  sealer.token = (await sealer.login(roleId, secretId)).token
  await sealer.write('sys/seal', {})
  sealer.close()
}
