/** What the certificate authority has, as the reconciler needs it. */
export interface PkiInventory {
  /** Every certificate that it keeps, ended ones included, as pairs of hexadecimal digits with colons. */
  serials(): Promise<string[]>
  revokedSerials(): Promise<string[]>
  /** Undefined: it was removed since. */
  certificate(serial: string): Promise<KeptCertificate | undefined>
}

export interface KeptCertificate {
  readonly commonName: string
  readonly notBefore: Date
  readonly notAfter: Date
}
