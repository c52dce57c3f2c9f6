import { setTimeout as sleep } from 'node:timers/promises'
import {
  Backoff,
  type CredentialSource,
  createMetrics,
  createVaultClient,
  Health,
  type IdentityMetrics,
  identityMetrics,
  type Logger,
  type VaultClient,
  VaultError,
  VaultSession,
} from '@ares/chassis'
import { Counter, type Registry } from 'prom-client'
import { ensureBrokerCertificate } from './broker-certificate'
import { CertsVolume } from './certs-volume'
import { CredentialDeliverer, type CredentialTarget } from './credential-deliverer'

export interface VaultAgentOptions {
  readonly address: string
  /** CA of the Vault server's own certificate. */
  readonly caPem?: string
  /** Of the AppRole `cert-agent`: agentCredentialsFromDirectory or agentCredentialsFromBootstrap. */
  readonly credentials: CredentialSource
  readonly certsDir: string
  /** As in BootstrapOptions: the certificate is made anew when the names differ. */
  readonly brokerNames?: readonly string[]
  readonly brokerGid?: number
  /** Services whose credentials are kept in files; the embedded stack hands them over itself and has none. */
  readonly targets?: readonly CredentialTarget[]
  /** How often the credentials are looked at; default 1 s, sooner than a restarted service asks again. */
  readonly deliverEveryMs?: number
  /** How often the broker's certificate is looked at; default 1 min. */
  readonly renewEveryMs?: number
  readonly logger: Logger
  readonly health?: Health
  readonly metrics?: ReturnType<typeof createMetrics>
}

/**
 * The certificate agent: keeps the broker's certificate fresh (from two thirds of its life on, with jitter) and the
 * services' credentials delivered. It has the right to do these two things and no other.
 * Faults are logged, shown in health as `broker-certificate` and `credentials`, and tried again for ever.
 */
export class VaultAgent {
  private readonly abort = new AbortController()
  private loops: Promise<unknown> = Promise.resolve()
  // Between 1/3 and 2/5 of its life is left then: agents that started together do not come together.
  private readonly renewBelow = 1 / 3 + Math.random() / 15

  private constructor(
    private readonly options: VaultAgentOptions,
    /** Logged in as `cert-agent`; its token is kept alive. The embedded stack makes wrapped secret ids with it. */
    readonly vault: VaultClient,
    private readonly session: VaultSession,
    private readonly metrics: IdentityMetrics,
    private readonly health: Health,
    private readonly delivered: ReturnType<typeof deliveryCounter>,
  ) {}

  /** Logs in and begins; waits up to a minute for a Vault that is not there yet. @throws when the login is refused */
  static async start(options: VaultAgentOptions): Promise<VaultAgent> {
    const registry = options.metrics ?? createMetrics('vault-agent')
    const metrics = identityMetrics(registry)
    const health = options.health ?? new Health()
    const vault = createVaultClient({
      address: options.address,
      caPem: options.caPem,
      onError: ({ code }) => metrics.vaultErrors.inc({ code }),
    })
    try {
      const session = await VaultSession.open({ ...options, vault, metrics, health })
      const agent = new VaultAgent(options, vault, session, metrics, health, deliveryCounter(registry))
      agent.begin()
      return agent
    } catch (error) {
      vault.close()
      throw error
    }
  }

  async stop(): Promise<void> {
    this.abort.abort()
    await this.loops
    await this.session.stop()
    this.vault.close()
  }

  private begin(): void {
    const { targets = [], deliverEveryMs = 1_000, renewEveryMs = 60_000 } = this.options
    const loops = [this.loop('broker-certificate', renewEveryMs, () => this.renew())]
    if (targets.length > 0) {
      const deliverer = new CredentialDeliverer(this.vault, targets)
      loops.push(this.loop('credentials', deliverEveryMs, () => this.deliver(deliverer)))
    }
    this.loops = Promise.all(loops)
  }

  private async renew(): Promise<void> {
    const { certsDir, brokerGid, brokerNames, logger } = this.options
    const { changes, notAfter } = await ensureBrokerCertificate({
      vault: this.vault,
      volume: new CertsVolume({ dir: certsDir, keyGid: brokerGid }),
      externalNames: brokerNames,
      renewBelow: this.renewBelow,
    })
    this.metrics.certificateEnd.set(notAfter.getTime() / 1_000)
    if (changes.length > 0) {
      this.metrics.certificateRenewals.inc({ result: 'ok' })
      logger.info('the broker certificate was replaced', { changes, notAfter })
    }
  }

  private async deliver(deliverer: CredentialDeliverer): Promise<void> {
    for (const delivery of await deliverer.deliver()) {
      const { service, reason } = delivery
      this.delivered.inc({ service, reason })
      if (reason === 'foreign') {
        this.options.logger.error('ALARM: a credential of another role lay in place of the one delivered', {
          ...delivery,
        })
      } else this.options.logger.info('credentials delivered', { ...delivery })
    }
  }

  /** Does the work every so often until the agent stops; after a fault sooner, with growing waits. */
  private async loop(name: string, everyMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.abort
    const backoff = new Backoff(1_000, 30_000)
    while (!signal.aborted) {
      let waitMs = everyMs
      try {
        await work()
        this.health.set(name, true)
        backoff.reset()
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof VaultError && error.code === 'token_gone') this.session.wake()
        waitMs = backoff.next()
        this.health.set(name, false, error instanceof Error ? error.message : String(error))
        this.options.logger.warn(`the agent could not do its work (${name}) and tries again`, { error, waitMs })
      }
      await sleep(waitMs, undefined, { signal }).catch(() => {})
    }
  }
}

const deliveryCounter = (registry: Registry) =>
  new Counter({
    name: 'ares_credentials_delivered_total',
    help: 'Credentials delivered to services, by why; more that were opened than a service had logins: somebody else did',
    labelNames: ['service', 'reason'] as const,
    registers: [registry],
  })
