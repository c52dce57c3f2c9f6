import type { CheckedCsr } from './csr'

/** A certificate as the PKI made it, checked against what was ordered. */
export interface SignedCertificate {
  /** Pairs of lower-case hexadecimal digits with colons between them. */
  readonly serial: string
  readonly certificatePem: string
  /** What signed it: the intermediate first, the root last. */
  readonly chainPem: readonly string[]
  /** SHA-256 of the DER, 64 lower-case hexadecimal digits. */
  readonly fingerprint: string
  readonly notBefore: Date
  readonly notAfter: Date
}

/** The certificate authority, as the certificates room needs it. */
export interface Pki {
  /**
   * Signs a device's CSR. Not idempotent: each call may make a certificate, even one that ends with an error.
   * @param commonName goes into the certificate, whatever the CSR says
   * @throws DomainError `pki_unavailable` (it may or may not have signed), `pki_refused`,
   *  `pki_answer_wrong` (what came back is not what was ordered; `cause` says why, and what became of it)
   */
  signDevice(csr: CheckedCsr, commonName: string): Promise<SignedCertificate>

  /** Revokes by serial. Idempotent: a certificate that is revoked or ended already is a success.
   *  @throws DomainError `pki_unavailable`, `pki_refused` */
  revoke(serial: string): Promise<void>
}
