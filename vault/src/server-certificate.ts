import { createPrivateKey, KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import path from 'node:path'
import { x509 } from '@ares/chassis'
import { replaceFile } from './file-replacement'

export interface ServerCertificate {
  readonly caFile: string
  readonly certFile: string
  readonly keyFile: string
}

export interface ServerCertificateOptions {
  /** Gets ca.crt, server.crt and server.key (0600). */
  readonly dir: string
  /** DNS names and IP addresses under which clients reach the server. */
  readonly names: readonly string[]
  /** Group that may read the key as well (then 0640), for a server that runs as another user. */
  readonly keyGid?: number
}

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000
const LIFE_DAYS = 825
/** What is left of its life when a start makes a new one. */
const RENEW_BELOW_DAYS = 90

/**
 * The certificate of the Vault server itself. It cannot come from Vault, which needs it to start: so a CA is made for
 * it alone, whose key is thrown away at once. One that fits the names and has enough life left is kept.
 * @returns the files, and whether they were made anew
 */
export async function ensureServerCertificate(
  options: ServerCertificateOptions,
): Promise<ServerCertificate & { readonly made: boolean }> {
  const files = {
    caFile: path.join(options.dir, 'ca.crt'),
    certFile: path.join(options.dir, 'server.crt'),
    keyFile: path.join(options.dir, 'server.key'),
  }
  if (await isUsable(files, options.names)) return { ...files, made: false }

  await mkdir(options.dir, { recursive: true })
  const made = await makeServerCertificate(options.names)
  // The key first: a start that was cut off in between finds a certificate that does not match, and makes new ones.
  const keyAccess = options.keyGid === undefined ? { mode: 0o600 } : { mode: 0o640, gid: options.keyGid }
  await replaceFile(files.keyFile, made.keyPem, keyAccess)
  await replaceFile(files.certFile, made.certificatePem, { mode: 0o644 })
  await replaceFile(files.caFile, made.caPem, { mode: 0o644 })
  return { ...files, made: true }
}

async function isUsable(files: ServerCertificate, names: readonly string[]): Promise<boolean> {
  try {
    const [caPem, certificatePem, keyPem] = await Promise.all(
      [files.caFile, files.certFile, files.keyFile].map((file) => readFile(file, 'utf8')),
    )
    const certificate = new X509Certificate(certificatePem ?? '')
    return (
      certificate.checkPrivateKey(createPrivateKey(keyPem ?? '')) &&
      certificate.verify(new X509Certificate(caPem ?? '').publicKey) &&
      Date.parse(certificate.validTo) - Date.now() > RENEW_BELOW_DAYS * DAY_MS &&
      names.every((name) => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined)
    )
  } catch {
    return false // missing, cut off or unreadable: made anew, and writing them says what is wrong
  }
}

async function makeServerCertificate(
  names: readonly string[],
): Promise<{ caPem: string; certificatePem: string; keyPem: string }> {
  const caKeys = await webcrypto.subtle.generateKey(P256, true, ['sign', 'verify'])
  const keys = await webcrypto.subtle.generateKey(P256, true, ['sign', 'verify'])
  // An hour back: a container's clock may be a little behind its host's.
  const validity = { notBefore: new Date(Date.now() - 3_600_000), notAfter: new Date(Date.now() + LIFE_DAYS * DAY_MS) }
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: [{ CN: ['Ares Vault server CA'] }],
    keys: caKeys,
    signingAlgorithm: P256,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  })
  const certificate = await x509.X509CertificateGenerator.create({
    ...validity,
    subject: [{ CN: ['vault'] }],
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: P256,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((name) => ({ type: isIP(name) ? ('ip' as const) : ('dns' as const), value: name })),
      ),
    ],
  })
  const keyPem = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
  return { caPem: `${ca.toString('pem')}\n`, certificatePem: `${certificate.toString('pem')}\n`, keyPem }
}
