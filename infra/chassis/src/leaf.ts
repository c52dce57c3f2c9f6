/** A certificate with its key, ready for TLS. The key exists only in memory. */
export interface Leaf {
  /** The certificate alone. */
  readonly certificatePem: string
  /** Certificate and intermediate, as a TLS peer must send them. */
  readonly chainPem: string
  /** PKCS #8. */
  readonly keyPem: string
  /** What peers are checked against: root and intermediate. */
  readonly caPem: string
  /** As Vault writes it: `55:66:40:…` */
  readonly serial: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly commonName: string
}

/** Where a server or client takes its certificate from; tests make one from any CA. */
export interface LeafSource {
  current(): Leaf
  /** Calls `listener` after each renewal. @returns a function that ends it */
  onRenewed(listener: (leaf: Leaf) => void): () => void
}
