import { X509Certificate } from 'node:crypto'
import { commonNameOf, DomainError, type VaultClient, VaultError } from '@ares/chassis'
import type { KeptCertificate, PkiInventory } from './pki-inventory'

/** Vault's mount `pki_int`. 12,700 serials are one answer of 790 KB. */
export class VaultInventory implements PkiInventory {
  constructor(private readonly vault: Pick<VaultClient, 'list' | 'read'>) {}

  serials(): Promise<string[]> {
    return told(() => this.vault.list('pki_int/certs'))
  }

  revokedSerials(): Promise<string[]> {
    return told(() => this.vault.list('pki_int/certs/revoked'))
  }

  async certificate(serial: string): Promise<KeptCertificate | undefined> {
    const answer = await told(() => this.vault.read(`pki_int/cert/${serial}`))
    const pem = answer?.data.certificate
    if (typeof pem !== 'string') return undefined
    const parsed = new X509Certificate(pem)
    return {
      // One with another number of names than one is not one that we order.
      commonName: commonNameOf(parsed) ?? '',
      notBefore: new Date(parsed.validFrom),
      notAfter: new Date(parsed.validTo),
    }
  }
}

async function told<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    if (!(error instanceof VaultError)) throw error
    const message = `What Vault has cannot be read now (Vault: ${error.code}).`
    throw new DomainError('unavailable', 'pki_unavailable', message, { reason: error.code }, { cause: error })
  }
}
