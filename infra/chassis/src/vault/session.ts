import { Backoff } from '../backoff'
import type { CheckResult, Health } from '../health'
import type { Logger } from '../log'
import { type Credential, CredentialAlarm, type CredentialSource, NoFreshCredential } from './credentials'
import type { IdentityMetrics } from './identity-metrics'
import { Pause } from './pause'
import type { VaultClient } from './vault-client'
import { VaultError } from './vault-error'

export interface SessionOptions {
  readonly vault: VaultClient
  readonly credentials: CredentialSource
  readonly logger: Logger
  readonly health: Health
  readonly metrics: IdentityMetrics
  /** How long Vault may be away at the start; default 60 s. */
  readonly startLimitMs?: number
  readonly signal?: AbortSignal
}

/**
 * VaultSession: a login whose token is kept alive.
 *
 *   OUT ──login──▶ IN ──two thirds of the lease──▶ RENEWING ──ok──▶ IN
 *    ▲                                                │
 *    │◀──the token is gone, or its lease has passed───┤
 *    │                                                └──other faults──▶ wait a little, RENEWING again
 *    └──login fails──▶ wait a little, OUT again
 *
 * The token is Vault's periodic kind: it lives as long as it is renewed. Its clock runs while Vault is down or sealed.
 */
export class VaultSession {
  private expiresAt = 0
  private trouble: string | undefined
  /** A secret id that was opened and not used yet: the login met a fault. */
  private opened: Credential | undefined
  private readonly pause = new Pause()
  private readonly stopping = new AbortController()
  private running: Promise<void> = Promise.resolve()

  private constructor(private readonly options: SessionOptions) {}

  /** Logs in; waits for a Vault that is not there yet, and for a fresh credential when the one there was used before.
   *  @throws CredentialAlarm, NoFreshCredential, VaultError, CertificateProblem (a file of the credentials is missing) */
  static async open(options: SessionOptions): Promise<VaultSession> {
    const session = new VaultSession(options)
    options.health.check('vault-token', () => session.state())
    await session.firstLogin()
    session.running = session.keepAlive()
    return session
  }

  /** Somebody saw that the token is gone: look at it now and not at the next renewal. */
  wake(): void {
    this.pause.end()
  }

  /** Ends the session and gives the token back, if Vault is there to take it. */
  async stop(): Promise<void> {
    this.stopping.abort()
    this.pause.end()
    await this.running
    try {
      await this.options.vault.revokeSelf({ timeoutMs: 1_000 })
    } catch (error) {
      this.options.logger.debug('the Vault token was not given back; it ends by itself', { error })
    }
  }

  private async firstLogin(): Promise<void> {
    const { logger, startLimitMs = 60_000, signal } = this.options
    const end = Date.now() + startLimitMs
    const backoff = new Backoff(250, 5_000)
    let alarm: CredentialAlarm | undefined
    for (;;) {
      try {
        await this.login()
        return
      } catch (error) {
        if (error instanceof CredentialAlarm) alarm = error
        const wait = backoff.next()
        const lacksCredential = error instanceof CredentialAlarm || error instanceof NoFreshCredential
        const hopeful = lacksCredential || (error instanceof VaultError && error.temporary)
        if (!hopeful || signal?.aborted || Date.now() + wait > end) throw lacksCredential ? (alarm ?? error) : error
        logger.warn('no login at Vault yet, trying again', { error, retryInMs: Math.round(wait) })
        await this.pause.start(wait, signal)
      }
    }
  }

  private async keepAlive(): Promise<void> {
    const { logger, vault, metrics } = this.options
    const backoff = new Backoff(1_000, 30_000)
    let wait = this.untilRenewal()
    for (;;) {
      await this.pause.start(wait, this.stopping.signal)
      if (this.stopping.signal.aborted) return
      try {
        if (vault.token === undefined) await this.login()
        else await this.renew()
        this.trouble = undefined
        backoff.reset()
        wait = this.untilRenewal()
      } catch (error) {
        if (this.stopping.signal.aborted) return
        const gone = (error instanceof VaultError && error.code === 'token_gone') || Date.now() >= this.expiresAt
        if (gone && vault.token !== undefined) {
          vault.token = undefined
          logger.warn('the Vault token is gone, logging in again', { error })
          wait = 0
          continue
        }
        wait = backoff.next()
        this.trouble = error instanceof Error ? error.message : String(error)
        logger.warn('the Vault token could not be renewed, trying again', { error, retryInMs: Math.round(wait) })
      } finally {
        metrics.tokenRenewals.inc({ result: this.trouble === undefined ? 'ok' : 'failed' })
      }
    }
  }

  private async renew(): Promise<void> {
    const { leaseSeconds } = await this.options.vault.renewSelf({ signal: this.stopping.signal })
    this.expiresAt = Date.now() + leaseSeconds * 1_000
  }

  private async login(): Promise<void> {
    const { vault, credentials, logger, metrics, health, signal } = this.options
    try {
      this.opened ??= await credentials.next(signal ?? this.stopping.signal)
      const auth = await vault.login(this.opened.roleId, this.opened.secretId, { signal: this.stopping.signal })
      this.opened = undefined
      vault.token = auth.token
      this.expiresAt = Date.now() + auth.leaseSeconds * 1_000
      metrics.logins.inc({ result: 'ok' })
      health.set('vault-credential', true)
      logger.info('logged in at Vault', { policies: auth.policies, leaseSeconds: auth.leaseSeconds })
    } catch (error) {
      metrics.logins.inc({ result: 'failed' })
      // Refused: the secret id is used up, destroyed or expired. A fault: it may still be good.
      if (error instanceof VaultError && !error.temporary) this.opened = undefined
      if (error instanceof CredentialAlarm) {
        metrics.credentialAlarms.inc()
        health.set('vault-credential', false, error.message)
        logger.error('ALARM: a credential of this service may be known to somebody else', { error })
      }
      if (error instanceof NoFreshCredential) health.set('vault-credential', false, error.message)
      throw error
    }
  }

  private untilRenewal(): number {
    const left = Math.max(0, this.expiresAt - Date.now())
    return Math.max(200, left * (0.6 + Math.random() * 0.1))
  }

  /** Vault being away is no failure of this service while the token lives: the detail says it. */
  private state(): CheckResult {
    if (this.options.vault.token === undefined || Date.now() >= this.expiresAt) {
      return { ok: false, detail: this.trouble ?? 'not logged in' }
    }
    const until = `good until ${new Date(this.expiresAt).toISOString()}`
    return { ok: true, detail: this.trouble ? `${until}; ${this.trouble}` : until }
  }
}
