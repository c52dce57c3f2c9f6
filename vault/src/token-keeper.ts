import { type CredentialSource, type VaultClient, VaultError } from '@ares/chassis'

/**
 * Keeps a client logged in: renews its token at half its life, and logs in anew when the token is gone, e.g. because Vault
 * was sealed for longer than the token's period (its clock runs on).
 */
export class TokenKeeper {
  private renewAt = 0

  constructor(
    private readonly vault: VaultClient,
    private readonly credentials: CredentialSource,
  ) {}

  /** Call it before each piece of work; it asks Vault for something only when it must. */
  async ensure(signal?: AbortSignal): Promise<void> {
    if (this.vault.token === undefined) return this.login(signal)
    if (Date.now() < this.renewAt) return
    try {
      this.note((await this.vault.renewSelf({ signal })).leaseSeconds)
    } catch (error) {
      if (!(error instanceof VaultError) || !mayBeGone(error)) throw error
      await this.login(signal)
    }
  }

  /** Run work with a live token; once more with a fresh one when Vault says that it is gone. */
  async with<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.ensure(signal)
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof VaultError) || error.code !== 'token_gone') throw error
      await this.login(signal)
      return await work()
    }
  }

  private async login(signal?: AbortSignal): Promise<void> {
    const { roleId, secretId } = await this.credentials.next(signal)
    const auth = await this.vault.login(roleId, secretId, { signal })
    this.vault.token = auth.token
    this.note(auth.leaseSeconds)
  }

  private note(leaseSeconds: number): void {
    this.renewAt = Date.now() + (leaseSeconds * 1_000) / 2
  }
}

/** A role that was deleted answers 500 to a renewal, a lost token 403: a login tells. */
const mayBeGone = (error: VaultError): boolean => error.code === 'token_gone' || (error.status ?? 0) === 500
