import type { experimental } from '@grpc/grpc-js'
import type { Leaf, LeafSource } from '../leaf'

type CaListener = experimental.CaCertificateUpdateListener
type IdentityListener = experimental.IdentityCertificateUpdateListener

/**
 * Feeds a LeafSource to grpc-js, which makes new handshakes with the newest certificate and leaves open connections
 * alone. It follows the source only while somebody listens, so closing a client or server is enough to let it go.
 */
export class LeafCertificateProvider implements experimental.CertificateProvider {
  private readonly caListeners = new Set<CaListener>()
  private readonly identityListeners = new Set<IdentityListener>()
  private stopFollowing: (() => void) | undefined

  constructor(private readonly source: LeafSource) {}

  addCaCertificateListener(listener: CaListener): void {
    this.caListeners.add(listener)
    this.follow()
    process.nextTick(() => listener(caUpdate(this.source.current())))
  }

  removeCaCertificateListener(listener: CaListener): void {
    this.caListeners.delete(listener)
    this.follow()
  }

  addIdentityCertificateListener(listener: IdentityListener): void {
    this.identityListeners.add(listener)
    this.follow()
    process.nextTick(() => listener(identityUpdate(this.source.current())))
  }

  removeIdentityCertificateListener(listener: IdentityListener): void {
    this.identityListeners.delete(listener)
    this.follow()
  }

  private follow(): void {
    const wanted = this.caListeners.size + this.identityListeners.size > 0
    if (wanted) {
      this.stopFollowing ??= this.source.onRenewed((leaf) => {
        for (const listener of this.identityListeners) listener(identityUpdate(leaf))
        for (const listener of this.caListeners) listener(caUpdate(leaf))
      })
    } else {
      this.stopFollowing?.()
      this.stopFollowing = undefined
    }
  }
}

const caUpdate = (leaf: Leaf) => ({ caCertificate: Buffer.from(leaf.caPem) })
const identityUpdate = (leaf: Leaf) => ({
  certificate: Buffer.from(leaf.chainPem),
  privateKey: Buffer.from(leaf.keyPem),
})
