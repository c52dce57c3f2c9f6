import { setTimeout as sleep } from 'node:timers/promises'
import {
  Backoff,
  type CredentialSource,
  createVaultClient,
  type Health,
  type Logger,
  type VaultClient,
} from '@ares/chassis'
import { ensureBrokerCertificate } from './broker-certificate'
import { CertsVolume } from './certs-volume'
import { CredentialDeliverer, type CredentialTarget } from './credential-deliverer'
import { TokenKeeper } from './token-keeper'

export interface VaultAgentOptions {
  readonly address: string
  readonly caPem?: string
  /** Of the AppRole `cert-agent`: agentCredentialsFromDirectory or agentCredentialsFromBootstrap. */
  readonly credentials: CredentialSource
  readonly certsDir: string
  /** As in BootstrapOptions: the certificate is made anew when the names differ. */
  readonly brokerNames?: readonly string[]
  readonly brokerGid?: number
  /** Services whose credentials are kept in files; the embedded stack delivers by itself and has none. */
  readonly targets?: readonly CredentialTarget[]
  /** How often the credentials are looked at; default 2 s. */
  readonly deliverEveryMs?: number
  /** How often the broker's certificate is looked at; default 1 min. */
  readonly renewEveryMs?: number
  readonly logger: Pick<Logger, 'info' | 'warn'>
  readonly health?: Health
}

/**
 * The certificate agent: keeps the broker's certificate fresh (from two thirds of its life on, with jitter) and the
 * services' credentials delivered. It has the right to do these two things and no other.
 * Faults are logged, shown in health as `broker_certificate` and `credentials`, and tried again for ever.
 */
export class VaultAgent {
  /** Logged in as `cert-agent`; its token is kept alive. For issueWrappedSecretId use withToken. */
  readonly vault: VaultClient
  private readonly abort = new AbortController()
  private readonly token: TokenKeeper
  private loops: Promise<unknown> = Promise.resolve()

  constructor(private readonly options: VaultAgentOptions) {
    this.vault = createVaultClient({ address: options.address, caPem: options.caPem })
    this.token = new TokenKeeper(this.vault, options.credentials)
  }

  /** Logs in and begins. @throws when the first login is refused */
  async start(): Promise<void> {
    const { options } = this
    await this.token.ensure(this.abort.signal)
    const loops = [this.loop('broker_certificate', options.renewEveryMs ?? 60_000, () => this.renew())]
    if (options.targets?.length) {
      const deliverer = new CredentialDeliverer(this.vault, options.targets)
      loops.push(this.loop('credentials', options.deliverEveryMs ?? 2_000, () => this.deliver(deliverer)))
    }
    this.loops = Promise.all(loops)
  }

  /** Runs work with `vault` while its token lives. */
  withToken<T>(work: (vault: VaultClient) => Promise<T>): Promise<T> {
    return this.token.with(() => work(this.vault), this.abort.signal)
  }

  async stop(): Promise<void> {
    this.abort.abort()
    await this.loops
    // The token would live for an hour more. Vault may be gone already: then it dies by itself.
    if (this.vault.token) await this.vault.revokeSelf({ timeoutMs: 2_000 }).catch(() => {})
    this.vault.close()
  }

  // Between 1/3 and 2/5 of its life is left then: agents of several brokers do not all come at once.
  private readonly renewBelow = 1 / 3 + Math.random() / 15

  private async renew(): Promise<void> {
    const { certsDir, brokerGid, brokerNames } = this.options
    const volume = new CertsVolume({ dir: certsDir, keyGid: brokerGid })
    const { changes, notAfter } = await ensureBrokerCertificate({
      vault: this.vault,
      volume,
      externalNames: brokerNames,
      renewBelow: this.renewBelow,
    })
    if (changes.length > 0) this.options.logger.info('broker certificate changed', { changes, notAfter })
  }

  private async deliver(deliverer: CredentialDeliverer): Promise<void> {
    for (const service of await deliverer.deliver()) {
      this.options.logger.info('credentials delivered', { target: service })
    }
  }

  private async loop(name: string, everyMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.abort
    const backoff = new Backoff(1_000, 30_000)
    while (!signal.aborted) {
      let waitMs = everyMs
      try {
        await this.token.with(work, signal)
        this.options.health?.set(name, true)
        backoff.reset()
      } catch (error) {
        if (signal.aborted) return
        waitMs = backoff.next()
        const reason = error instanceof Error ? error.message : String(error)
        this.options.health?.set(name, false, reason)
        this.options.logger.warn('the agent could not do its work and tries again', { work: name, reason, waitMs })
      }
      await sleep(waitMs, undefined, { signal }).catch(() => {})
    }
  }
}
