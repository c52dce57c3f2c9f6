import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createVaultClient, freePort, isFree } from '@ares/chassis'
import { openVault } from './opening'
import { ensureServerCertificate } from './server-certificate'

export interface VaultServerOptions {
  /** See findVaultBinary. */
  readonly binary: string
  /**
   * Everything the server needs: data/, tls/, config.hcl, server.log and keys.json (0600, see VaultKeys).
   * Kept between starts; never the certs volume.
   */
  readonly dir: string
  /** 0 (default) takes any free one. */
  readonly port?: number
  /** The server's own certificate; left out, one is made in dir/tls. */
  readonly tls?: { readonly caFile: string; readonly certFile: string; readonly keyFile: string }
  /** Do not initialize and unseal; the caller does (default: false). */
  readonly leaveSealed?: boolean
  readonly onProgress?: (line: string) => void
}

export interface VaultServer {
  /** `https://127.0.0.1:<port>` */
  readonly address: string
  readonly port: number
  readonly caFile: string
  readonly caPem: string
  /** Where the unseal key is. */
  readonly keyFile: string
  readonly pid: number
  /** Resolves when the process has ended, however that came about. */
  readonly ended: Promise<string>
  /** SIGTERM, and SIGKILL after 10 s; nothing acknowledged is lost by either. May be called twice. */
  stop(): Promise<void>
}

/**
 * Starts a Vault-compatible server (OpenBao or HashiCorp Vault) on loopback with raft storage and TLS, and returns when it
 * really serves.
 * @throws an Error that names the taken port, the folder another server uses, the lost unseal key, or the end of the log
 */
export async function startVaultServer(options: VaultServerOptions): Promise<VaultServer> {
  const attempts = options.port ? 1 : 3
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(options)
    } catch (error) {
      // A free port that was looked up may be another's a moment later.
      if (attempt === attempts || !(error instanceof PortTaken)) throw error
    }
  }
}

class PortTaken extends Error {}

async function start(options: VaultServerOptions): Promise<VaultServer> {
  const { onProgress = () => {} } = options
  const dir = path.resolve(options.dir)
  const at = (name: string) => path.join(dir, name)
  await mkdir(at('data'), { recursive: true, mode: 0o700 })
  await refuseSecondServer(dir)

  if (options.port && !(await isFree(options.port))) throw new PortTaken(portTaken(options.port))
  const port = options.port || (await freePort())
  const clusterPort = await freePort()
  const tls =
    options.tls ?? (await ensureServerCertificate({ dir: at('tls'), names: ['localhost', '127.0.0.1', 'vault'] }))
  await writeFile(at('config.hcl'), configuration({ data: at('data'), port, clusterPort, ...tls }))

  const child = new ServerProcess(options.binary, at('config.hcl'), at('server.log'))
  await writeFile(at('server.pid'), String(child.pid))
  const address = `https://127.0.0.1:${port}`
  const caPem = await readFile(tls.caFile, 'utf8')
  const vault = createVaultClient({ address, caPem })
  try {
    const givenUp = () => child.endedBecause
    if (options.leaveSealed)
      await waitUntil(
        () =>
          vault.health().then(
            () => true,
            () => false,
          ),
        givenUp,
      )
    else {
      const changes = await openVault({ vault, keyFile: at('keys.json'), givenUp })
      onProgress(changes.includes('initialize') ? 'initialized a new store' : 'opened the store')
    }
  } catch (error) {
    await child.stop()
    throw child.explained(error, port, dir)
  } finally {
    vault.close()
  }
  return {
    address,
    port,
    caFile: tls.caFile,
    caPem,
    keyFile: at('keys.json'),
    pid: child.pid,
    ended: child.ended,
    stop: async () => {
      await child.stop()
      await rm(at('server.pid'), { force: true })
    },
  }
}

class ServerProcess {
  endedBecause: string | undefined
  readonly ended: Promise<string>
  private readonly child: ChildProcess
  private readonly logBegin: number

  constructor(
    binary: string,
    config: string,
    private readonly logFile: string,
  ) {
    const log = openSync(logFile, 'a', 0o600)
    this.logBegin = statSync(logFile).size
    this.child = spawn(binary, ['server', `-config=${config}`], {
      stdio: ['ignore', log, log],
      env: fewVariables(),
      detached: true, // Ctrl-C in the terminal is for the caller, who stops things in order
    })
    closeSync(log)
    this.ended = new Promise((resolve) => {
      const end = (why: string) => {
        this.endedBecause ??= why
        resolve(this.endedBecause)
      }
      this.child.once('error', (error) => end(error.message))
      this.child.once('exit', (code, signal) => end(`The Vault server ended (${signal ?? `exit code ${code}`})`))
    })
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  async stop(): Promise<void> {
    if (this.endedBecause) return
    this.child.kill('SIGTERM') // raft steps down first: about 1 s
    const killer = setTimeout(() => this.child.kill('SIGKILL'), 10_000)
    await this.ended
    clearTimeout(killer)
  }

  /** Adds what a person needs to know: which port, which folder, or the last lines of the log. */
  explained(error: unknown, port: number, dir: string): Error {
    const message = error instanceof Error ? error.message : String(error)
    const log = readFileSync(this.logFile).subarray(this.logBegin).toString('utf8')
    if (/address already in use/.test(log)) return new PortTaken(portTaken(port))
    if (/failed to open bolt file: timeout/.test(log)) return new Error(folderInUse(dir))
    if (!message.startsWith('The Vault server ended')) return error instanceof Error ? error : new Error(message)
    const tail = log.trim().split('\n').slice(-3).join('\n  ')
    return new Error(`${message}. The end of ${this.logFile}:\n  ${tail}`)
  }
}

interface Configuration {
  readonly data: string
  readonly port: number
  readonly clusterPort: number
  readonly certFile: string
  readonly keyFile: string
}

/** Only what HashiCorp Vault and OpenBao share; server.hcl beside policies/ is the same for containers. */
const configuration = ({ data, port, clusterPort, certFile, keyFile }: Configuration): string => `storage "raft" {
  path = ${JSON.stringify(data)}
  node_id = "node1"
  performance_multiplier = 1
}
listener "tcp" {
  address = "127.0.0.1:${port}"
  cluster_address = "127.0.0.1:${clusterPort}"
  tls_cert_file = ${JSON.stringify(certFile)}
  tls_key_file = ${JSON.stringify(keyFile)}
}
api_addr = "https://127.0.0.1:${port}"
cluster_addr = "https://127.0.0.1:${clusterPort}"
disable_mlock = true
ui = false
log_format = "json"
`

/** The server prints the names of all its variables at start, and obeys VAULT_* and BAO_*: it gets few. */
const fewVariables = (): NodeJS.ProcessEnv =>
  Object.fromEntries(
    ['PATH', 'HOME', 'TMPDIR', 'SYSTEMROOT'].flatMap((name) => {
      const value = process.env[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )

async function refuseSecondServer(dir: string): Promise<void> {
  const pid = Number(await readFile(path.join(dir, 'server.pid'), 'utf8').catch(() => ''))
  // A pid may be another program's by now: the store's own lock decides then, this only answers sooner and clearer.
  if (pid && (await isVaultServer(pid, dir))) throw new Error(`${folderInUse(dir)} Its process id is ${pid}.`)
}

async function isVaultServer(pid: number, dir: string): Promise<boolean> {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => undefined)
  return command?.includes(path.join(dir, 'config.hcl')) ?? false
}

const folderInUse = (dir: string): string =>
  `Another Vault server is using ${dir}: stop it first, or choose another folder.`
const portTaken = (port: number): string => `Port ${port} for the Vault server is taken: free it, or choose another.`

async function waitUntil(holds: () => Promise<boolean>, givenUp: () => string | undefined): Promise<void> {
  const end = Date.now() + 30_000
  while (!(await holds())) {
    const reason = givenUp()
    if (reason) throw new Error(reason)
    if (Date.now() > end) throw new Error('The Vault server did not answer within 30 s.')
    await sleep(50)
  }
}
