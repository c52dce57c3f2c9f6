import { X509Certificate } from 'node:crypto'
import {
  type CallOptions,
  CertificateProblem,
  commonNameOf,
  DomainError,
  isRoot,
  serialOf,
  splitPem,
  type VaultClient,
  VaultError,
  verifyChain,
} from '@ares/chassis'
import { z } from 'zod'
import type { CheckedCsr } from './csr'
import type { Pki, SignedCertificate } from './pki'

/** What Vault's role `device` allows at most. */
export const LONGEST_DEVICE_LIFE_MS = 30 * 24 * 3_600_000

/** Vault's clock and ours may differ by ten minutes, and the call takes its time. */
const END_TOLERANCE_MS = 11 * 60_000

/** A revocation waits no longer: what follows must not wait for a Vault that is away. */
const REVOKE_WITHIN_MS = 2_000

/** The PKI in Vault: mount `pki_int`, role `device`. */
export class VaultPki implements Pki {
  /** @param caPem the root and intermediate that are trusted here
   *  @param lifeMs what a device's certificate is ordered with */
  constructor(
    private readonly vault: Pick<VaultClient, 'write'>,
    private readonly caPem: () => string,
    private readonly lifeMs = LONGEST_DEVICE_LIFE_MS,
  ) {}

  async signDevice(csr: CheckedCsr, commonName: string): Promise<SignedCertificate> {
    const data = await this.call('pki_int/sign/device', {
      csr: csr.pem,
      common_name: commonName,
      exclude_cn_from_sans: true,
      ttl: `${Math.round(this.lifeMs / 1_000)}s`,
    })
    const { certificate, serial_number: serial, ca_chain: chain } = signAnswer.parse(data ?? {})
    const leaf = certificateIn(certificate)
    try {
      if (!leaf) throw new CertificateProblem('it holds no certificate')
      return this.checked({ leaf, serial, chain }, csr, commonName)
    } catch (error) {
      // Of whatever kind it is, it comes from the answer: that is all `checked` looks at.
      const what = error instanceof Error ? error.message : String(error)
      const cause = new Error(`${what}; ${await this.withdraw(leaf, csr)}`)
      throw new DomainError(
        'unavailable',
        'pki_answer_wrong',
        'Vault made something else than the certificate that was ordered. Try again.',
        {},
        { cause },
      )
    }
  }

  async revoke(serial: string): Promise<void> {
    try {
      await this.call('pki_int/revoke', { serial_number: serial }, { idempotent: true, timeoutMs: REVOKE_WITHIN_MS })
    } catch (error) {
      // Ended and tidied away: nothing is left that could be revoked.
      if (error instanceof DomainError && /with serial .* not found/.test(error.message)) return
      throw error
    }
  }

  /** @throws CertificateProblem that says what is not as ordered */
  private checked(answer: SignAnswer, csr: CheckedCsr, commonName: string): SignedCertificate {
    const { leaf, serial } = answer
    const notBefore = new Date(leaf.validFrom)
    const notAfter = new Date(leaf.validTo)
    if (commonNameOf(leaf) !== commonName) throw new CertificateProblem('the name is another one')
    if (!isFor(csr, leaf)) throw new CertificateProblem('the key is another one')
    if (serialOf(leaf) !== serial) throw new CertificateProblem('the serial number beside it is another one')
    if (leaf.subjectAltName) throw new CertificateProblem('it has alternative names')
    if (leaf.ca) throw new CertificateProblem('it is a CA')
    this.checkEnd(notAfter)
    const chain = answer.chain.flatMap(splitPem)
    if (chain.length === 0) throw new CertificateProblem('it came without its chain')
    if (!chain.every(certificateIn)) throw new CertificateProblem('its chain cannot be read')
    // Only our own roots are trusted: the answer's chain may add intermediates, nothing else.
    const intermediates = chain.filter((pem) => !isRoot(new X509Certificate(pem)))
    const root = verifyChain(leaf, [...intermediates, ...splitPem(this.caPem())])
    return {
      serial,
      certificatePem: withNewline(leaf.toString()),
      chainPem: [...intermediates, withNewline(root.toString())],
      fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
      notBefore,
      notAfter,
    }
  }

  private checkEnd(notAfter: Date): void {
    const now = Date.now()
    const offMs = notAfter.getTime() - (now + this.lifeMs)
    if (notAfter.getTime() <= now) throw new CertificateProblem(`it has ended already, at ${notAfter.toISOString()}`)
    if (Math.abs(offMs) <= END_TOLERANCE_MS) return
    const howFar = `${Math.round(Math.abs(offMs) / 60_000)} min too ${offMs > 0 ? 'late' : 'early'}`
    throw new CertificateProblem(`it ends at ${notAfter.toISOString()}, ${howFar}`)
  }

  /** What was made must not be usable. A certificate for another key may be somebody else's: the reconciler finds it if it
   *  is nobody's. @returns what became of it, for the log */
  private async withdraw(leaf: X509Certificate | undefined, csr: CheckedCsr): Promise<string> {
    if (!leaf) return 'whatever was signed is left to the comparison with the database'
    const serial = serialOf(leaf)
    if (!isFor(csr, leaf)) return `${serial} is left to the comparison with the database`
    try {
      await this.revoke(serial)
      return `${serial} was revoked`
    } catch (error) {
      return `${serial} could not be revoked (${String(error)}) and is left to the comparison with the database`
    }
  }

  private async call(path: string, data: object, options: CallOptions = {}): Promise<unknown> {
    try {
      return (await this.vault.write(path, data, options)).data
    } catch (error) {
      if (error instanceof VaultError) throw refusalOf(error)
      throw error
    }
  }
}

const signAnswer = z.object({
  certificate: z.string().catch(''),
  ca_chain: z.array(z.string()).catch([]),
  serial_number: z.string().catch(''),
})
interface SignAnswer {
  readonly leaf: X509Certificate
  readonly serial: string
  readonly chain: readonly string[]
}

function certificateIn(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
}

const isFor = (csr: CheckedCsr, leaf: X509Certificate): boolean =>
  leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(csr.publicKey)

const withNewline = (pem: string): string => `${pem.trimEnd()}\n`

function refusalOf(error: VaultError): DomainError {
  const cause = { cause: error }
  if (error.code === 'rejected') {
    return new DomainError('invalid', 'pki_refused', `Vault refuses: ${error.message}`, {}, cause)
  }
  return new DomainError(
    'unavailable',
    'pki_unavailable',
    `Certificates cannot be signed or revoked now (Vault: ${error.code}). Try again.`,
    { reason: error.code },
    cause,
  )
}
