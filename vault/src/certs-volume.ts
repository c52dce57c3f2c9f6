import { X509Certificate } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { isRoot, splitPem, verifyChain } from '@ares/chassis'
import { ensureAccess, type FileAccess, replaceFile } from './file-replacement'

export interface CertsVolumeOptions {
  readonly dir: string
  /** Group of the broker's process, so that it may read the key; left out, the writer's own. */
  readonly keyGid?: number
}

/** What the broker's certificate consists of, as it is on disk or shall be. */
export interface BrokerFiles {
  readonly keyPem: string
  /** Leaf and intermediate: a broker that sends its leaf alone is refused by whoever trusts the root only. */
  readonly chainPem: string
}

/**
 * The certs volume, which is not Vault's own storage:
 *
 *     ca/full_chain_ca.crt   0644  root and intermediates
 *     emqx/emqx.crt          0644  leaf and intermediate
 *     emqx/emqx.key          0640
 *
 * Modes are set on these names and on nothing else: a glob once took the x bit from a data directory, and the server behind
 * it could write no more. Each file is replaced at once and durably, and only when its content changes.
 */
export class CertsVolume {
  readonly caFile: string
  readonly brokerCertificateFile: string
  readonly brokerKeyFile: string
  private readonly caDir: string
  private readonly brokerDir: string

  constructor(private readonly options: CertsVolumeOptions) {
    this.caDir = path.join(options.dir, 'ca')
    this.brokerDir = path.join(options.dir, 'emqx')
    this.caFile = path.join(this.caDir, 'full_chain_ca.crt')
    this.brokerCertificateFile = path.join(this.brokerDir, 'emqx.crt')
    this.brokerKeyFile = path.join(this.brokerDir, 'emqx.key')
  }

  /** Makes the directories and corrects their modes. @returns what was changed */
  async ensureDirectories(): Promise<string[]> {
    await mkdir(this.options.dir, { recursive: true, mode: 0o755 })
    return [
      ...(await ensureDirectory(this.caDir, { mode: 0o755 })),
      ...(await ensureDirectory(this.brokerDir, { mode: 0o750, gid: this.options.keyGid })),
    ]
  }

  /** @returns the root and the intermediates as they are now, or undefined when there are none */
  async readCa(): Promise<{ readonly rootPem: string; readonly intermediatePems: readonly string[] } | undefined> {
    const pems = splitPem((await readIfThere(this.caFile)) ?? '')
    const rootPem = pems.find((pem) => isRoot(new X509Certificate(pem)))
    return rootPem ? { rootPem, intermediatePems: pems.filter((pem) => pem !== rootPem) } : undefined
  }

  /** @throws CertificateProblem when an intermediate is not the root's */
  async writeCa(rootPem: string, intermediatePems: readonly string[]): Promise<string[]> {
    for (const pem of intermediatePems) verifyChain(pem, [rootPem])
    return writeIfDifferent(this.caFile, [rootPem, ...intermediatePems].join(''), CERTIFICATE_ACCESS)
  }

  /** @returns undefined when one of the two files is not there */
  async readBroker(): Promise<BrokerFiles | undefined> {
    const [keyPem, chainPem] = [await readIfThere(this.brokerKeyFile), await readIfThere(this.brokerCertificateFile)]
    return keyPem === undefined || chainPem === undefined ? undefined : { keyPem, chainPem }
  }

  /** The key first: EMQX reads both again every two minutes, and until the certificate follows it keeps the old pair. */
  async writeBroker(files: BrokerFiles): Promise<string[]> {
    return [
      ...(await writeIfDifferent(this.brokerKeyFile, files.keyPem, this.keyAccess())),
      ...(await writeIfDifferent(this.brokerCertificateFile, files.chainPem, CERTIFICATE_ACCESS)),
    ]
  }

  /** Corrects the modes and leaves the content alone, which another may have replaced meanwhile. @returns what was changed */
  async ensureBrokerAccess(): Promise<string[]> {
    return [
      ...(await correctAccess(this.brokerKeyFile, this.keyAccess())),
      ...(await correctAccess(this.brokerCertificateFile, CERTIFICATE_ACCESS)),
    ]
  }

  private keyAccess(): FileAccess {
    return { mode: 0o640, gid: this.options.keyGid }
  }
}

/** Writes a file only when its content changes, and corrects its mode when that is wrong. @returns what was changed */
export async function writeIfDifferent(file: string, content: string, access: FileAccess): Promise<string[]> {
  if ((await readIfThere(file)) !== content) {
    await replaceFile(file, content, access)
    return [`write ${file}`]
  }
  return correctAccess(file, access)
}

const CERTIFICATE_ACCESS: FileAccess = { mode: 0o644 }

const correctAccess = async (name: string, access: FileAccess): Promise<string[]> =>
  (await ensureAccess(name, access)) ? [`mode of ${name}`] : []

async function ensureDirectory(directory: string, access: FileAccess): Promise<string[]> {
  const made = await mkdir(directory, { recursive: true, mode: access.mode })
  const corrected = await correctAccess(directory, access)
  return made !== undefined ? [`make ${directory}`] : corrected
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
