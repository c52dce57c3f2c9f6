import 'reflect-metadata'
import { KeyObject, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

export interface TestCertificate {
  readonly certPem: string
  readonly keyPem: string
  /** base64 of the DER */
  readonly der: string
}

export interface LeafOptions {
  readonly usage?: 'client' | 'server' | 'both'
  readonly notAfter?: Date
  /** The whole subject, where CN alone is not enough. */
  readonly subject?: string
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const USAGES = { client: [CLIENT_AUTH], server: [SERVER_AUTH], both: [CLIENT_AUTH, SERVER_AUTH] }

/** A certificate authority for tests; its leaves are for `localhost` and 127.0.0.1. */
export class TestAuthority {
  private constructor(
    private readonly certificate: x509.X509Certificate,
    private readonly keys: webcrypto.CryptoKeyPair,
  ) {}

  static async create(name = 'Test CA'): Promise<TestAuthority> {
    const keys = await newKeys()
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: `CN=${name}`,
      keys,
      signingAlgorithm: ALGORITHM,
      notBefore: new Date(Date.now() - 86_400_000),
      notAfter: new Date(Date.now() + 10 * 86_400_000),
      extensions: [
        new x509.BasicConstraintsExtension(true, 1, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    })
    return new TestAuthority(certificate, keys)
  }

  get pem(): string {
    return this.certificate.toString('pem')
  }

  async leaf(commonName: string, options: LeafOptions = {}): Promise<TestCertificate> {
    const keys = await newKeys()
    const certificate = await x509.X509CertificateGenerator.create({
      subject: options.subject ?? `CN=${commonName}`,
      issuer: this.certificate.subject,
      publicKey: keys.publicKey,
      signingKey: this.keys.privateKey,
      signingAlgorithm: ALGORITHM,
      notBefore: new Date(Date.now() - 3_600_000),
      notAfter: options.notAfter ?? new Date(Date.now() + 86_400_000),
      extensions: [
        new x509.ExtendedKeyUsageExtension(USAGES[options.usage ?? 'client']),
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: 'localhost' },
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    })
    return {
      certPem: certificate.toString('pem'),
      keyPem: KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
      der: Buffer.from(certificate.rawData).toString('base64'),
    }
  }
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>
}
