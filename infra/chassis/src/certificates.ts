import { KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { x509 } from './x509'

/** Certificates: what chassis, vault, api and the stack need to make, read and check them. */

/** A certificate, chain or CA bundle that must not be used; the message says which one and why. */
export class CertificateProblem extends Error {
  override readonly name = 'CertificateProblem'
}

/** A fresh EC P-256 key, in memory only, and a request for a certificate in its name. About 3 ms. */
export async function newKeyAndCsr(commonName: string): Promise<{ readonly keyPem: string; readonly csrPem: string }> {
  const keys = await webcrypto.subtle.generateKey(P256, true, ['sign', 'verify'])
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [commonName] }],
    keys,
    signingAlgorithm: P256,
  })
  return {
    keyPem: KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
    csrPem: `${csr.toString('pem')}\n`,
  }
}

/** The PEM blocks of a text, in their order, each with a newline at its end. */
export function splitPem(text: string): string[] {
  return (text.match(/-----BEGIN ([A-Z0-9 ]+)-----[\s\S]+?-----END \1-----/g) ?? []).map((block) => `${block}\n`)
}

/** The serial as Vault writes it: lower-case pairs with colons. Vault finds no other form than pairs. */
export function serialOf(certificate: string | X509Certificate): string {
  const { serialNumber } = parsed(certificate)
  const even = serialNumber.length % 2 === 0 ? serialNumber : `0${serialNumber}`
  return (even.toLowerCase().match(/../g) ?? []).join(':')
}

/** The CN of a certificate's subject; undefined when there is none or more than one. */
export function commonNameOf(certificate: string | X509Certificate): string | undefined {
  const names = parsed(certificate)
    .subject.split('\n')
    .filter((line) => line.startsWith('CN='))
  return names.length === 1 ? names[0]?.slice('CN='.length) : undefined
}

/**
 * Walks from a leaf through its issuers to a root: names, signatures, CA flags and dates.
 * X509Certificate has no path validation of its own; these are its parts.
 * @param issuersPem intermediates and root, in any order
 * @returns the root
 * @throws CertificateProblem that names the certificate and what is wrong with it
 */
export function verifyChain(
  leaf: string | X509Certificate,
  issuersPem: string | readonly string[],
  at: Date = new Date(),
): X509Certificate {
  const issuers = (typeof issuersPem === 'string' ? splitPem(issuersPem) : issuersPem).map((pem) => parsed(pem))
  let current = parsed(leaf)
  for (let depth = 0; depth < LONGEST_CHAIN; depth++) {
    assertValidAt(current, at)
    if (isRoot(current)) {
      // A self-signed certificate proves nothing unless it is one of ours.
      if (issuers.some((issuer) => issuer.raw.equals(current.raw))) return current
      throw new CertificateProblem(`${labelOf(current)} is signed by itself and is not one of the CAs that are trusted`)
    }
    const issuer = issuers.find((ca) => ca.ca && current.checkIssued(ca) && current.verify(ca.publicKey))
    if (!issuer) {
      throw new CertificateProblem(
        `${labelOf(current)} was issued by "${oneLine(current.issuer)}", and no such CA is among the ${issuers.length} that are trusted (${issuers.map(labelOf).join(', ')})`,
      )
    }
    current = issuer
  }
  throw new CertificateProblem(`the chain of ${labelOf(parsed(leaf))} is longer than ${LONGEST_CHAIN} certificates`)
}

/** True for a CA that signed itself. */
export function isRoot(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey)
}

/** @throws CertificateProblem when the certificate has not begun or has ended at that time */
export function assertValidAt(certificate: X509Certificate, at: Date): void {
  if (new Date(certificate.validFrom) > at) {
    throw new CertificateProblem(
      `${labelOf(certificate)} is valid from ${certificate.validFrom} only, and it is ${at.toISOString()} here: is a clock wrong?`,
    )
  }
  if (new Date(certificate.validTo) < at) {
    throw new CertificateProblem(`${labelOf(certificate)} ended at ${certificate.validTo}, it is ${at.toISOString()}`)
  }
}

/** How a message names a certificate: its CN, or the whole subject. */
export const labelOf = (certificate: X509Certificate): string =>
  commonNameOf(certificate) ?? `"${oneLine(certificate.subject)}"`

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const LONGEST_CHAIN = 5

const oneLine = (name: string): string => name.split('\n').join(', ')

function parsed(certificate: string | X509Certificate): X509Certificate {
  if (typeof certificate !== 'string') return certificate
  try {
    return new X509Certificate(certificate)
  } catch {
    throw new CertificateProblem('this is not a certificate in PEM')
  }
}
