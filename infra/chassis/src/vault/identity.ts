import type { ServiceName } from '@ares/proto'
import type { Registry } from 'prom-client'
import type { Health } from '../health'
import type { Leaf, LeafSource } from '../leaf'
import type { Logger } from '../log'
import type { CredentialSource } from './credentials'
import type { VaultClient } from './vault-client'

export interface IdentityOptions {
  readonly name: ServiceName
  readonly vaultAddress: string
  readonly vaultCaPem?: string
  /** Root and intermediate, see loadCaFile. */
  readonly caPem: string
  readonly credentials: CredentialSource
  readonly logger: Logger
  readonly health: Health
  readonly metrics: Registry
  readonly signal?: AbortSignal
}

export class ServiceIdentity implements LeafSource {
  private constructor(readonly vault: VaultClient) {}
  static async create(_options: IdentityOptions): Promise<ServiceIdentity> {
    throw new Error('not built yet')
  }
  current(): Leaf {
    throw new Error('not built yet')
  }
  onRenewed(_listener: (leaf: Leaf) => void): () => void {
    throw new Error('not built yet')
  }
  async stop(): Promise<void> {}
}
