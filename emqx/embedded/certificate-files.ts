import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import type { BrokerLogger } from './logger'

/** The files of a TLS endpoint, as emqx.conf names them. */
export interface CertificateFiles {
  readonly keyfile?: string | undefined
  readonly certfile?: string | undefined
  readonly cacertfile?: string | undefined
}

/** Those that are named. */
export function namedFiles({ keyfile, certfile, cacertfile }: CertificateFiles): string[] {
  return [keyfile, certfile, cacertfile].filter((file) => file !== undefined)
}

/**
 * Key, certificate and CA bundle as they are on disk now.
 * @throws Error naming the file that cannot be read, or that key and certificate do not belong together (they are
 *   replaced one after the other)
 */
export function readCertificateFiles(files: CertificateFiles): { key?: Buffer; cert?: Buffer; ca?: Buffer } {
  const key = files.keyfile === undefined ? undefined : readFile(files.keyfile)
  const cert = files.certfile === undefined ? undefined : readFile(files.certfile)
  const ca = files.cacertfile === undefined ? undefined : readFile(files.cacertfile)
  if (key && cert && !new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))) {
    throw new Error(`the key ${files.keyfile} does not belong to the certificate ${files.certfile}`)
  }
  return { key, cert, ca }
}

/** Looks at files for a change of content, as EMQX does every two minutes; here it is every second or two. */
export class FileWatch {
  private readonly timer: NodeJS.Timeout
  private seen: string

  constructor(
    private readonly files: readonly string[],
    /** Takes the new content up; when it throws it is called again at the next look. */
    private readonly onChange: () => void,
    private readonly logger: BrokerLogger,
    intervalMs: number,
  ) {
    this.seen = this.fingerprint()
    this.timer = setInterval(() => this.look(), intervalMs)
    this.timer.unref()
  }

  close(): void {
    clearInterval(this.timer)
  }

  private look(): void {
    const now = this.fingerprint()
    if (now === this.seen) return
    try {
      this.onChange()
      this.seen = now
    } catch (error) {
      this.logger.warn('replaced certificate files are not usable yet; the ones in use stay', {
        reason: error instanceof Error ? error.message : String(error),
      })
    }
  }

  private fingerprint(): string {
    return this.files.map(stampOf).join('|')
  }
}

function stampOf(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false })
  return stat ? `${stat.ino}:${stat.size}:${stat.mtimeMs}` : 'missing'
}

function readFile(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new Error(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}
