import type { webcrypto } from 'node:crypto'
import { DomainError, x509 } from '@ares/chassis'

/**
 * A CSR that keeps every rule, and nothing more of it than what may go on. Vault drops quietly what it does not like, takes
 * the last of two names and signs dotted, upper-case and non-ASCII ones: the rules are ours.
 */
export interface CheckedCsr {
  /** One PEM block, written anew. */
  readonly pem: string
  /** DER, SubjectPublicKeyInfo. */
  readonly publicKey: Buffer
}

/** Which rule a CSR breaks. */
export type CsrRule =
  | 'csr_malformed'
  | 'csr_too_large'
  | 'csr_not_alone'
  | 'csr_signature_wrong'
  | 'csr_signature_weak'
  | 'csr_key_not_allowed'
  | 'csr_common_name_missing'
  | 'csr_common_name_repeated'
  | 'csr_common_name_not_canonical'
  | 'csr_common_name_other'
  | 'csr_alternative_names'

/** The request breaks a rule; `code` says which. */
export class CsrRejected extends DomainError {
  constructor(rule: CsrRule, message: string) {
    super('invalid', rule, message, { errors: [{ field: 'body.csr', message }] })
  }
}

const MAXIMUM_BYTES = 16 * 1024

/** @param commonName the only name the CSR may ask for
 *  @throws CsrRejected naming the first rule that is broken */
export async function checkCsr(text: string, commonName: string): Promise<CheckedCsr> {
  const csr = parse(onlyBlock(text))
  checkKey(csr)
  await checkSignature(csr)
  checkName(csr, commonName)
  if (csr.getExtensions(SUBJECT_ALTERNATIVE_NAME).length > 0) {
    throw new CsrRejected('csr_alternative_names', 'The CSR asks for alternative names (SAN). Leave them out.')
  }
  return { pem: csr.toString('pem'), publicKey: Buffer.from(csr.publicKey.rawData) }
}

const SUBJECT_ALTERNATIVE_NAME = '2.5.29.17'

function onlyBlock(text: string): string {
  if (Buffer.byteLength(text) > MAXIMUM_BYTES) {
    throw new CsrRejected('csr_too_large', `The CSR is larger than ${MAXIMUM_BYTES / 1024} KiB.`)
  }
  const blocks = text.match(/-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g) ?? []
  const [block] = blocks
  if (block === undefined || !/^-----BEGIN (NEW )?CERTIFICATE REQUEST-----/.test(block)) {
    throw new CsrRejected('csr_malformed', 'This is not a CSR in PEM (-----BEGIN CERTIFICATE REQUEST-----).')
  }
  if (blocks.length > 1 || block !== text.trim()) {
    throw new CsrRejected('csr_not_alone', 'There must be exactly one CSR and nothing beside it.')
  }
  return block
}

function parse(block: string): x509.Pkcs10CertificateRequest {
  try {
    const csr = new x509.Pkcs10CertificateRequest(block)
    void csr.publicKey.algorithm // what is read late fails here
    csr.subjectName.getField('CN')
    return csr
  } catch {
    throw new CsrRejected('csr_malformed', 'The PEM block does not hold a CSR (PKCS #10).')
  }
}

function checkKey(csr: x509.Pkcs10CertificateRequest): void {
  const algorithm = csr.publicKey.algorithm as webcrypto.Algorithm & { namedCurve?: string; modulusLength?: number }
  const { name, namedCurve = '', modulusLength = 0 } = algorithm
  const allowed =
    (name === 'ECDSA' && ['P-256', 'P-384'].includes(namedCurve)) ||
    name === 'Ed25519' ||
    // Checking a signature grows with the key's length, and a stranger chooses it.
    (name.startsWith('RSA') && modulusLength >= 2_048 && modulusLength <= 4_096)
  if (allowed) return
  const found = [name, namedCurve || (modulusLength > 0 ? `${modulusLength} bits` : '')].join(' ').trim()
  throw new CsrRejected(
    'csr_key_not_allowed',
    `The key is ${found}. Allowed are EC P-256 and P-384, Ed25519, and RSA of 2048 to 4096 bits.`,
  )
}

async function checkSignature(csr: x509.Pkcs10CertificateRequest): Promise<void> {
  const { hash } = csr.signatureAlgorithm as { hash?: { name?: string } }
  if (hash?.name === 'SHA-1') throw new CsrRejected('csr_signature_weak', 'The CSR is signed with SHA-1. Use SHA-256.')
  if (!(await csr.verify().catch(() => false))) {
    throw new CsrRejected('csr_signature_wrong', 'The signature of the CSR does not fit its key.')
  }
}

function checkName(csr: x509.Pkcs10CertificateRequest, commonName: string): void {
  const names = csr.subjectName.getField('CN')
  const [name] = names
  if (name === undefined) {
    throw new CsrRejected('csr_common_name_missing', `The subject has no CN. It must be ${commonName}.`)
  }
  if (names.length > 1) throw new CsrRejected('csr_common_name_repeated', 'The subject has more than one CN.')
  if (name === commonName) return
  if (name.normalize('NFKC').trim().toLowerCase().replace(/\.$/, '') === commonName) {
    throw new CsrRejected('csr_common_name_not_canonical', `The CN must be written exactly so: ${commonName}`)
  }
  throw new CsrRejected('csr_common_name_other', `The CN is not the device's. It must be ${commonName}.`)
}
