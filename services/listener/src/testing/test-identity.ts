import { webcrypto } from 'node:crypto'
import type { Leaf, LeafSource } from '@ares/chassis'
import { newKeyAndCsr, serialOf } from '@ares/chassis'
import * as x509 from '@peculiar/x509'

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const DAY_MS = 86_400_000

/** A certificate authority that exists for one test file. */
export class TestCa {
  private serial = 1

  private constructor(
    readonly pem: string,
    private readonly certificate: x509.X509Certificate,
    private readonly keys: webcrypto.CryptoKeyPair,
  ) {}

  static async create(): Promise<TestCa> {
    const keys = (await webcrypto.subtle.generateKey(P256, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      serialNumber: '01',
      name: 'CN=test CA',
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      keys,
      signingAlgorithm: P256,
      extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
    })
    return new TestCa(`${certificate.toString('pem')}\n`, certificate, keys)
  }

  /** A leaf for server and client, valid for its common name, localhost and 127.0.0.1. */
  async leaf(commonName: string): Promise<Leaf> {
    const { keyPem, csrPem } = await newKeyAndCsr(commonName)
    const notBefore = new Date(Date.now() - 60_000)
    const notAfter = new Date(Date.now() + DAY_MS / 2)
    this.serial += 1
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: this.serial.toString(16).padStart(4, '0'),
      subject: `CN=${commonName}`,
      issuer: this.certificate.subject,
      notBefore,
      notAfter,
      publicKey: new x509.Pkcs10CertificateRequest(csrPem).publicKey,
      signingKey: this.keys.privateKey,
      signingAlgorithm: P256,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: commonName },
          { type: 'dns', value: 'localhost' },
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    })
    const certificatePem = `${certificate.toString('pem')}\n`
    return {
      certificatePem,
      chainPem: certificatePem,
      keyPem,
      caPem: this.pem,
      serial: serialOf(certificatePem),
      notBefore,
      notAfter,
      commonName,
    }
  }

  /** An identity as a service has it, whose renewal the test decides. */
  async identity(commonName: string): Promise<TestIdentity> {
    return new TestIdentity(await this.leaf(commonName))
  }
}

export class TestIdentity implements LeafSource {
  private readonly listeners = new Set<(leaf: Leaf) => void>()

  constructor(private leaf: Leaf) {}

  current(): Leaf {
    return this.leaf
  }

  onRenewed(listener: (leaf: Leaf) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  renew(leaf: Leaf): void {
    this.leaf = leaf
    for (const listener of this.listeners) listener(leaf)
  }

  async stop(): Promise<void> {
    this.listeners.clear()
  }
}
