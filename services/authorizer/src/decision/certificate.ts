import { createPublicKey, type KeyObject, X509Certificate } from 'node:crypto'

/** What a decision needs of the certificate that a client came with. */
export interface PresentedCertificate {
  /** The one CN of its subject; undefined when there is none or more than one. */
  readonly commonName: string | undefined
  /** Lower-case hex without leading zero bytes. */
  readonly serial: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** Signed by a certificate of the CA bundle. */
  readonly ours: boolean
}

/** Certificates that are remembered: a fleet that reconnects shows the same ones. About 1.5 KB each. */
const REMEMBERED = 10_000

/** Of base64: 24 bytes. */
const KEY_CHARACTERS = 32

/**
 * Reads the certificates that EMQX passes on, and checks once more that ours signed them: EMQX has verified them already,
 * but a listener that was set to `verify_none` by mistake must not be an open door. Parsing costs 0.2 ms and the signature
 * 0.1 ms here, so what was read is kept under the text it was read from.
 */
export class CertificateReader {
  private issuers: readonly { readonly certificate: X509Certificate; readonly key: KeyObject }[] = []
  /** By the end of the text, which is of the signature and so of one certificate alone: to hash all of it takes longer than
   *  to compare it. */
  private readonly known = new Map<string, { readonly text: string; readonly certificate: PresentedCertificate }>()
  private caPem = ''

  /** @param caPem root and intermediate */
  constructor(caPem: string) {
    this.trust(caPem)
  }

  /** Replaces the CA bundle. */
  trust(caPem: string): void {
    if (caPem === this.caPem) return
    this.caPem = caPem
    this.issuers = (caPem.match(PEM_CERTIFICATE) ?? [])
      .map((pem) => new X509Certificate(pem))
      .filter((certificate) => certificate.ca)
      .map((certificate) => ({ certificate, key: createPublicKey(certificate.publicKey.export(SPKI)) }))
    this.known.clear()
  }

  /** @param text `${cert_pem}` of the authn body: base64 of the DER. @returns undefined for what is no certificate */
  read(text: string): PresentedCertificate | undefined {
    const end = text.slice(-KEY_CHARACTERS)
    const before = this.known.get(end)
    if (before?.text === text) return before.certificate
    const certificate = this.parse(text)
    if (!certificate) return undefined
    if (this.known.size >= REMEMBERED) {
      for (const oldest of this.known.keys()) {
        this.known.delete(oldest)
        break
      }
    }
    this.known.set(end, { text, certificate })
    return certificate
  }

  private parse(text: string): PresentedCertificate | undefined {
    if (!BASE64.test(text)) return undefined
    try {
      const certificate = new X509Certificate(Buffer.from(text, 'base64'))
      return {
        commonName: onlyCommonName(certificate.subject),
        serial: certificate.serialNumber.toLowerCase(),
        notBeforeMs: Date.parse(certificate.validFrom),
        notAfterMs: Date.parse(certificate.validTo),
        ours: this.issuers.some(
          (issuer) => certificate.checkIssued(issuer.certificate) && certificate.verify(issuer.key),
        ),
      }
    } catch {
      return undefined // bytes of a client: not a certificate is an answer, not an error
    }
  }
}

const SPKI = { format: 'pem', type: 'spki' } as const
const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g

/** DER begins with the byte 0x30, so its base64 with M; PEM text, which OpenSSL would take as well, does not. */
const BASE64 = /^M[A-Za-z0-9+/]+={0,2}$/

/** Node shows one attribute a line, those of one RDN joined by ` + `. */
function onlyCommonName(subject: string | undefined): string | undefined {
  const attributes = (subject ?? '').split(/\n| \+ /)
  const names = attributes.filter((attribute) => attribute.startsWith('CN='))
  return names.length === 1 ? names[0]?.slice(3) : undefined
}
