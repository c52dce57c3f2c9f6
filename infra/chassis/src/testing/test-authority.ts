import { KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { commonNameOf, serialOf } from '../certificates'
import type { Leaf, LeafSource } from '../leaf'
import { x509 } from '../x509'

const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const HOUR_MS = 3_600_000

/** A leaf, and how others write parts of it. */
export interface TestLeaf extends Leaf {
  /** As EMQX sends it: base64 of the DER. */
  readonly der: string
  /** Big-endian, as the directory has it. */
  readonly serialBytes: Buffer
}

export interface LeafOptions {
  /** The whole subject, such as `CN=first, CN=second`, where a common name is not enough. */
  readonly subject?: string
  /** DNS names; default: the common name and localhost */
  readonly names?: readonly string[]
  readonly notBefore?: Date
  readonly notAfter?: Date
  readonly server?: boolean
  readonly client?: boolean
}

interface Issuer {
  readonly certificate: x509.X509Certificate
  readonly keys: CryptoKeyPair
}
type CryptoKeyPair = webcrypto.CryptoKeyPair

/** A root, an intermediate and leaves like Vault's, for tests that need TLS and no Vault. */
export class TestAuthority {
  private constructor(
    private readonly root: Issuer,
    private readonly intermediate: Issuer,
  ) {}

  static async create(name = 'Test'): Promise<TestAuthority> {
    const root = await certificateAuthority(`${name} Root CA`)
    return new TestAuthority(root, await certificateAuthority(`${name} Intermediate CA`, root))
  }

  get rootPem(): string {
    return pem(this.root.certificate)
  }

  get intermediatePem(): string {
    return pem(this.intermediate.certificate)
  }

  /** What full_chain_ca.crt holds. */
  get caPem(): string {
    return this.intermediatePem + this.rootPem
  }

  async leaf(commonName: string, options: LeafOptions = {}): Promise<TestLeaf> {
    const keys = await newKeys()
    const usages = [
      ...(options.server === false ? [] : [x509.ExtendedKeyUsage.serverAuth]),
      ...(options.client === false ? [] : [x509.ExtendedKeyUsage.clientAuth]),
    ]
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: options.subject ?? [{ CN: [commonName] }],
      issuer: this.intermediate.certificate.subject,
      notBefore: options.notBefore ?? new Date(Date.now() - 30_000),
      notAfter: options.notAfter ?? new Date(Date.now() + HOUR_MS),
      publicKey: keys.publicKey,
      signingKey: this.intermediate.keys.privateKey,
      signingAlgorithm: P256,
      extensions: [
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension(usages),
        new x509.SubjectAlternativeNameExtension([
          ...(options.names ?? [...(commonName === '' ? [] : [commonName]), 'localhost']).map((value) => ({
            type: 'dns' as const,
            value,
          })),
          { type: 'ip', value: '127.0.0.1' },
        ]),
      ],
    })
    const parsed = new X509Certificate(pem(certificate))
    return {
      certificatePem: pem(certificate),
      chainPem: pem(certificate) + this.intermediatePem,
      keyPem: KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
      caPem: this.caPem,
      serial: serialOf(parsed),
      notBefore: new Date(parsed.validFrom),
      notAfter: new Date(parsed.validTo),
      commonName: commonNameOf(parsed) ?? commonName,
      der: parsed.raw.toString('base64'),
      serialBytes: Buffer.from(certificate.serialNumber, 'hex'),
    }
  }

  /** The identity of a service, as far as servers and clients need it. */
  async identity(commonName: string): Promise<TestIdentity> {
    return new TestIdentity(await this.leaf(commonName))
  }
}

/** A LeafSource whose renewals the test decides. */
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

  /** What a service calls when it stops. Nothing is left out of the count of those who follow. */
  async stop(): Promise<void> {}

  /** How many follow this identity: 0 when everything that used it was closed. */
  get followers(): number {
    return this.listeners.size
  }
}

async function certificateAuthority(name: string, issuer?: Issuer): Promise<Issuer> {
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: [{ CN: [name] }],
    issuer: issuer ? issuer.certificate.subject : [{ CN: [name] }],
    notBefore: new Date(Date.now() - HOUR_MS),
    notAfter: new Date(Date.now() + 24 * HOUR_MS),
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    signingAlgorithm: P256,
    extensions: [
      new x509.BasicConstraintsExtension(true, issuer ? 0 : undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  })
  return { certificate, keys }
}

const newKeys = (): Promise<CryptoKeyPair> => webcrypto.subtle.generateKey(P256, true, ['sign', 'verify'])
const pem = (certificate: x509.X509Certificate): string => `${certificate.toString('pem')}\n`

/** Positive, and with a first digit that is not zero. */
const serial = (): string => `5${randomBytes(16).toString('hex').slice(1)}`
