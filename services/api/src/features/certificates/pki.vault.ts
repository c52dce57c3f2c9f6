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

/** A role's 30 days and some: a certificate beyond that was not made by the role we ask. */
const LONGEST_LIFE_MS = 31 * 24 * 3_600_000

/** A revocation waits no longer: what follows must not wait for a Vault that is away. */
const REVOKE_WITHIN_MS = 2_000

/** The PKI in Vault: mount `pki_int`, role `device`. */
export class VaultPki implements Pki {
  /** @param caPem the root and intermediate that are trusted here */
  constructor(
    private readonly vault: Pick<VaultClient, 'write'>,
    private readonly caPem: () => string,
  ) {}

  async signDevice(csr: CheckedCsr, commonName: string): Promise<SignedCertificate> {
    const data = await this.call('pki_int/sign/device', {
      csr: csr.pem,
      common_name: commonName,
      exclude_cn_from_sans: true,
    })
    const answer = signAnswer.safeParse(data)
    if (!answer.success) throw wrong('it has no certificate, chain or serial number')
    try {
      return this.checked(answer.data, csr, commonName)
    } catch (error) {
      // It exists, so it must not be usable. When this fails too, the first error is the one to tell.
      await this.revoke(answer.data.serial_number).catch(() => {})
      throw error instanceof CertificateProblem ? wrong(error.message) : error
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

  private checked(answer: SignAnswer, csr: CheckedCsr, commonName: string): SignedCertificate {
    const leaf = new X509Certificate(answer.certificate)
    const notBefore = new Date(leaf.validFrom)
    const notAfter = new Date(leaf.validTo)
    if (commonNameOf(leaf) !== commonName) throw wrong('the name is another one')
    if (!leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(csr.publicKey))
      throw wrong('the key is another one')
    if (serialOf(leaf) !== answer.serial_number) throw wrong('the serial number is another one')
    if (leaf.subjectAltName) throw wrong('it has alternative names')
    if (leaf.ca) throw wrong('it is a CA')
    if (notAfter.getTime() - notBefore.getTime() > LONGEST_LIFE_MS) throw wrong('it lives too long')
    // Only our own roots are trusted: the answer's chain may add intermediates, nothing else.
    const intermediates = answer.ca_chain.flatMap(splitPem).filter((pem) => !isRoot(new X509Certificate(pem)))
    const root = verifyChain(leaf, [...intermediates, ...splitPem(this.caPem())])
    return {
      serial: answer.serial_number,
      certificatePem: withNewline(answer.certificate),
      chainPem: [...intermediates, withNewline(root.toString())],
      fingerprint: leaf.fingerprint256.replaceAll(':', '').toLowerCase(),
      notBefore,
      notAfter,
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
  certificate: z.string().min(1),
  ca_chain: z.array(z.string()).min(1),
  serial_number: z.string().regex(/^[0-9a-f]{2}(:[0-9a-f]{2})*$/),
})
type SignAnswer = z.output<typeof signAnswer>

const withNewline = (pem: string): string => `${pem.trimEnd()}\n`

const wrong = (what: string): DomainError =>
  new DomainError(
    'unavailable',
    'pki_answer_wrong',
    `The certificate that Vault made is not what was ordered: ${what}.`,
  )

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
