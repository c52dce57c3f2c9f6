import 'reflect-metadata'
import { randomBytes, webcrypto } from 'node:crypto'
import type { Leaf, LeafSource } from '@ares/chassis'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(webcrypto)

type CryptoKey = webcrypto.CryptoKey

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

export interface TestLeaf extends Leaf {
  /** As EMQX sends it: base64 of the DER. */
  readonly der: string
  /** Big-endian, as the directory has it. */
  readonly serialBytes: Buffer
}

/** A root, an intermediate and what it signs, like the one that Vault holds. */
export class TestCa {
  private constructor(
    readonly caPem: string,
    private readonly intermediate: x509.X509Certificate,
    private readonly key: CryptoKey,
  ) {}

  static async create(): Promise<TestCa> {
    const [rootKeys, keys] = await Promise.all([newKeys(), newKeys()])
    const root = await certificate('CN=Test root', 'CN=Test root', rootKeys.publicKey, rootKeys.privateKey, {
      ca: true,
    })
    const intermediate = await certificate('CN=Test CA', root.subject, keys.publicKey, rootKeys.privateKey, {
      ca: true,
    })
    const pem = [root, intermediate].map((each) => `${each.toString('pem')}\n`).join('')
    return new TestCa(pem, intermediate, keys.privateKey)
  }

  /** @param subject a CN, or a whole subject such as `CN=a,CN=b` */
  async issue(subject: string, dates: { readonly notBefore?: Date; readonly notAfter?: Date } = {}): Promise<TestLeaf> {
    const keys = await newKeys()
    const name = subject.includes('=') || subject === '' ? subject : `CN=${subject}`
    const leaf = await certificate(name, this.intermediate.subject, keys.publicKey, this.key, { ca: false, ...dates })
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
    const certificatePem = `${leaf.toString('pem')}\n`
    return {
      certificatePem,
      chainPem: `${certificatePem}${this.intermediate.toString('pem')}\n`,
      keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`,
      caPem: this.caPem,
      serial: (leaf.serialNumber.match(/../g) ?? []).join(':'),
      serialBytes: Buffer.from(leaf.serialNumber, 'hex'),
      der: Buffer.from(leaf.rawData).toString('base64'),
      notBefore: leaf.notBefore,
      notAfter: leaf.notAfter,
      commonName: subject,
    }
  }
}

/** An identity whose certificate the test changes. */
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
}

const newKeys = () => webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])

async function certificate(
  subject: string,
  issuer: string,
  publicKey: CryptoKey,
  signingKey: CryptoKey,
  o: { readonly ca: boolean; readonly notBefore?: Date; readonly notAfter?: Date },
): Promise<x509.X509Certificate> {
  const serial = randomBytes(20)
  serial[0] = (serial[0]! & 0x7f) | 0x40
  const commonName = /^CN=([^,]+)$/.exec(subject)?.[1]
  return x509.X509CertificateGenerator.create({
    serialNumber: serial.toString('hex'),
    subject,
    issuer,
    notBefore: o.notBefore ?? new Date(Date.now() - DAY_MS),
    notAfter: o.notAfter ?? new Date(Date.now() + DAY_MS),
    publicKey,
    signingKey,
    signingAlgorithm: EC,
    extensions: [
      new x509.BasicConstraintsExtension(o.ca, undefined, true),
      ...(o.ca || !commonName
        ? []
        : [
            new x509.SubjectAlternativeNameExtension([
              { type: 'dns', value: commonName },
              { type: 'dns', value: 'localhost' },
              { type: 'ip', value: '127.0.0.1' },
            ]),
          ]),
    ],
  })
}
