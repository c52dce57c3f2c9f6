import { setTimeout as sleep } from 'node:timers/promises'
import { Backoff } from '../backoff'
import type { CheckResult, Health } from '../health'
import type { Logger } from '../log'
import { type Credential, CredentialAlarm, type CredentialSource, NoFreshCredential } from './credentials'
import type { IdentityMetrics } from './identity-metrics'
import { Pause } from './pause'
import type { VaultClient } from './vault-client'
import { VaultError } from './vault-error'
import { VaultWatch } from './watch'

export interface SessionOptions {
  readonly vault: VaultClient
  readonly credentials: CredentialSource
  readonly logger: Logger
  readonly health: Health
  readonly metrics: IdentityMetrics
  /** How long Vault may be away at the start; default 60 s. */
  readonly startLimitMs?: number
  readonly signal?: AbortSignal
  /** Milliseconds since 1970; default the clock of this machine. */
  readonly now?: () => number
  /** How often Vault is looked at; default 10 s. */
  readonly watchEveryMs?: number
  /** Called when Vault can be used again after it could not. */
  readonly onReturn?: () => void
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
 * The token is Vault's periodic kind: it lives as long as it is renewed. Its clock runs while Vault is down or sealed, so
 * after a long outage it is gone and there is a new login, at once when Vault is back (see VaultWatch).
 * The checks `vault`, `vault-token` and `vault-credential` name what is wrong; after the first login they are degraded and
 * do not fail: a service works on its certificate, and fails when that has ended.
 */
export class VaultSession {
  private expiresAt = 0
  private trouble: string | undefined
  /** A secret id that was opened and not used yet: the login met a fault. */
  private opened: (Credential & { tried: boolean }) | undefined
  private loggedInOnce = false
  private readonly pause = new Pause()
  private readonly stopping = new AbortController()
  private running: Promise<unknown> = Promise.resolve()
  private readonly watch: VaultWatch

  private constructor(private readonly options: SessionOptions) {
    this.watch = new VaultWatch({
      ...options,
      everyMs: options.watchEveryMs,
      onReturn: () => {
        this.wake()
        options.onReturn?.()
      },
    })
  }

  /** Logs in; waits for a Vault that is not there yet, and for a fresh credential when the one there was used before.
   *  @throws CredentialAlarm, NoFreshCredential, VaultError, CertificateProblem (a file of the credentials is missing) */
  static async open(options: SessionOptions): Promise<VaultSession> {
    const session = new VaultSession(options)
    options.health.check('vault-token', () => session.state())
    try {
      await session.firstLogin()
    } catch (error) {
      await session.watch.stop()
      throw error
    }
    session.running = Promise.all([session.keepAlive(), session.guardCredentials()])
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
    await this.watch.stop()
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
        const lacksCredential =
          error instanceof CredentialAlarm || error instanceof NoFreshCredential || error instanceof LoginCarriedOut
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
        const gone = (error instanceof VaultError && error.code === 'token_gone') || this.now() >= this.expiresAt
        if (gone && vault.token !== undefined) {
          vault.token = undefined
          metrics.tokenHeld.set(0)
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
    this.expiresAt = this.now() + leaseSeconds * 1_000
  }

  private async login(): Promise<void> {
    const { vault, credentials, logger, metrics, health, signal } = this.options
    try {
      this.opened ??= { ...(await credentials.next(signal ?? this.stopping.signal)), tried: false }
      const { roleId, secretId, tried } = this.opened
      this.opened.tried = true
      const auth = await vault.login(roleId, secretId, { signal: this.stopping.signal }).catch((error: unknown) => {
        // An earlier try got no answer and was carried out: the secret id is used up, and by nobody but us.
        const usedUp = tried && error instanceof VaultError && error.code === 'rejected'
        throw usedUp ? new LoginCarriedOut(error.message) : error
      })
      this.opened = undefined
      vault.token = auth.token
      metrics.tokenHeld.set(1)
      this.loggedInOnce = true
      this.expiresAt = this.now() + auth.leaseSeconds * 1_000
      metrics.logins.inc({ result: 'ok' })
      health.set('vault-credential', true)
      logger.info('logged in at Vault', { policies: auth.policies, leaseSeconds: auth.leaseSeconds })
    } catch (error) {
      metrics.logins.inc({ result: 'failed' })
      metrics.loginRefusals.inc({ reason: reasonOf(error) })
      // Refused: the secret id is used up, destroyed or expired. A fault: it may still be good.
      if (!(error instanceof VaultError && error.temporary)) this.opened = undefined
      if (error instanceof CredentialAlarm) this.alarm(error)
      if (error instanceof NoFreshCredential) health.check('vault-credential', () => this.lacking(error.message))
      throw error
    }
  }

  /** The next login's credentials lie there while nobody needs them: somebody else who uses them is found out. */
  private async guardCredentials(): Promise<void> {
    const { credentials, logger, watchEveryMs = 10_000 } = this.options
    const { signal } = this.stopping
    while (!signal.aborted) {
      try {
        await credentials.inspect?.()
      } catch (error) {
        if (error instanceof CredentialAlarm) this.alarm(error)
        else logger.warn('the credentials of the next login could not be looked at', { error })
      }
      await sleep(watchEveryMs, undefined, { signal, ref: false }).catch(() => {})
    }
  }

  /** Stays in health until a login with credentials that nobody else has used. */
  private alarm(error: CredentialAlarm): void {
    const { metrics, health, logger } = this.options
    metrics.credentialAlarms.inc()
    health.check('vault-credential', () => this.lacking(error.message))
    logger.error('ALARM: a credential of this service may be known to somebody else', { error })
  }

  private now(): number {
    return (this.options.now ?? Date.now)()
  }

  private untilRenewal(): number {
    const left = Math.max(0, this.expiresAt - this.now())
    return Math.max(200, left * (0.6 + Math.random() * 0.1))
  }

  /** A service that has been logged in once works on its certificate; without a token it is only degraded. */
  private lacking(detail: string): CheckResult {
    return this.loggedInOnce ? { ok: true, degraded: true, detail } : { ok: false, detail }
  }

  private state(): CheckResult {
    if (this.options.vault.token === undefined || this.now() >= this.expiresAt) {
      return this.lacking(`no token: ${this.trouble ?? 'not logged in'}`)
    }
    const until = `good until ${new Date(this.expiresAt).toISOString()}`
    return this.trouble
      ? { ok: true, degraded: true, detail: `${until}; ${this.trouble}` }
      : { ok: true, detail: until }
  }
}

/** A login whose answer was lost had been carried out. */
class LoginCarriedOut extends Error {
  override readonly name = 'LoginCarriedOut'

  constructor(words: string) {
    super(`an earlier login was carried out and its answer lost, so the secret id is used up (${words})`)
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof CredentialAlarm) return 'credential_alarm'
  if (error instanceof NoFreshCredential) return 'no_fresh_credential'
  if (error instanceof LoginCarriedOut) return 'rejected'
  return error instanceof VaultError ? error.code : 'other'
}
