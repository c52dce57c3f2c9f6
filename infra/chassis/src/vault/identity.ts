import { createPrivateKey, X509Certificate } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ServiceName, serviceCommonName } from '@ares/proto'
import type { Registry } from 'prom-client'
import { Backoff } from '../backoff'
import { CaFileWatch } from '../ca-file'
import {
  assertValidAt,
  CertificateProblem,
  commonNameOf,
  isRoot,
  newKeyAndCsr,
  serialOf,
  splitPem,
  verifyChain,
} from '../certificates'
import type { CheckResult, Health } from '../health'
import type { Leaf, LeafSource } from '../leaf'
import type { Logger } from '../log'
import type { CredentialSource } from './credentials'
import { type IdentityMetrics, identityMetrics } from './identity-metrics'
import { Pause } from './pause'
import { VaultSession } from './session'
import { createVaultClient, type VaultClient } from './vault-client'
import { VaultError } from './vault-error'

export interface IdentityOptions {
  readonly name: ServiceName
  readonly vaultAddress: string
  /** CA of the Vault server's own certificate; left out for one that a public CA signed, or plain HTTP in tests. */
  readonly vaultCaPem?: string
  /** Root and intermediate, see loadCaFile. */
  readonly caPem: string
  /** The file that `caPem` came from: followed, because a rotation of the intermediate replaces it. */
  readonly caFile?: string
  readonly credentials: CredentialSource
  readonly logger: Logger
  readonly health: Health
  readonly metrics: Registry
  /** DNS names; default `<name>.service.ares4.internal`, `<name>`, `localhost`. The policy allows exactly one such list. */
  readonly altNames?: readonly string[]
  /** Life to ask for, e.g. `1h`; default what the role says (24 h). */
  readonly ttl?: string
  /** How long Vault may be away at the start; default 60 s. */
  readonly startLimitMs?: number
  /** How often Vault is looked at; default 10 s. */
  readonly watchEveryMs?: number
  /** Milliseconds since 1970; default the clock of this machine. */
  readonly now?: () => number
  readonly signal?: AbortSignal
}

/**
 * Who a service is: a login at Vault whose token is kept alive, and a certificate whose key is made here and stays in memory.
 *
 *   VALID ──two thirds of its life──▶ RENEWING ──new one checked──▶ VALID (the listeners get it)
 *                                        └──failed──▶ wait a little, RENEWING again; the old one stays in use
 *
 * With Vault away everything goes on until the certificate ends: then, and not before, the check `certificate` fails.
 * A CA bundle that was replaced is taken up and told to the listeners like a new certificate, with the same serial.
 */
export class ServiceIdentity implements LeafSource {
  private readonly listeners = new Set<(leaf: Leaf) => void>()
  private readonly stopping = new AbortController()
  private readonly pause = new Pause()
  private running: Promise<void> = Promise.resolve()
  private trouble: string | undefined
  private dueAt = 0
  private readonly backoff = new Backoff(1_000, 60_000)
  private bundle: CaFileWatch | undefined

  private constructor(
    /** Logged in, its token is kept alive. */
    readonly vault: VaultClient,
    private readonly session: VaultSession,
    private readonly options: IdentityOptions,
    private readonly metrics: IdentityMetrics,
    private leaf: Leaf,
  ) {}

  /** Logs in, has a certificate signed and checks what it is about to use.
   *  @throws CredentialAlarm, NoFreshCredential, VaultError, CertificateProblem */
  static async create(options: IdentityOptions): Promise<ServiceIdentity> {
    const metrics = identityMetrics(options.metrics)
    let session: VaultSession | undefined
    let identity: ServiceIdentity | undefined
    const vault = createVaultClient({
      address: options.vaultAddress,
      caPem: options.vaultCaPem,
      onError: (error) => {
        metrics.vaultErrors.inc({ code: error.code })
        if (error.code === 'token_gone') session?.wake()
      },
    })
    try {
      const onReturn = () => identity?.tryNow()
      session = await VaultSession.open({ ...options, vault, metrics, onReturn })
      const leaf = await firstLeaf(vault, options)
      const made = new ServiceIdentity(vault, session, options, metrics, leaf)
      identity = made
      made.take(leaf)
      options.health.check('certificate', () => made.state())
      made.followBundle()
      made.running = made.keepFresh()
      return made
    } catch (error) {
      await session?.stop()
      vault.close()
      throw error
    }
  }

  current(): Leaf {
    return this.leaf
  }

  onRenewed(listener: (leaf: Leaf) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** Renews now and not at its time. @throws when there is no new certificate; the old one stays in use */
  async renew(): Promise<void> {
    try {
      this.take(await signedLeaf(this.vault, { ...this.options, caPem: this.leaf.caPem }))
      this.trouble = undefined
    } catch (error) {
      this.metrics.certificateRenewals.inc({ result: 'failed' })
      this.trouble = error instanceof Error ? error.message : String(error)
      throw error
    }
  }

  async stop(): Promise<void> {
    this.stopping.abort()
    this.bundle?.close()
    await this.running
    await this.session.stop()
    this.vault.close()
    this.listeners.clear()
  }

  /** Vault is back: what failed meanwhile is tried again now and not after its wait. */
  private tryNow(): void {
    if (this.trouble === undefined) return
    this.backoff.reset()
    this.dueAt = 0
    this.pause.end()
  }

  private followBundle(): void {
    const { caFile, health, logger } = this.options
    if (caFile === undefined) return
    const bundle = new CaFileWatch(caFile, this.leaf.caPem, {
      taken: (caPem) => {
        this.metrics.bundleChanges.inc({ result: 'taken' })
        logger.info('CA bundle taken up', { file: caFile, certificates: splitPem(caPem).length })
        this.leaf = { ...this.leaf, caPem }
        this.tell()
      },
      refused: (problem) => {
        this.metrics.bundleChanges.inc({ result: 'refused' })
        logger.error('the CA bundle was replaced by one that cannot be used; the one in use stays', { problem })
      },
    })
    this.bundle = bundle
    health.check('ca-bundle', () =>
      bundle.problem
        ? { ok: true, degraded: true, detail: `${caFile} ${bundle.problem}; an older one is in use` }
        : true,
    )
  }

  private take(signed: Leaf): void {
    // While it was signed, the bundle may have been replaced.
    const leaf = { ...signed, caPem: this.leaf.caPem }
    this.leaf = leaf
    this.metrics.certificateRenewals.inc({ result: 'ok' })
    this.metrics.certificateEnd.set(leaf.notAfter.getTime() / 1_000)
    this.options.logger.info('certificate in use', {
      commonName: leaf.commonName,
      serial: leaf.serial,
      notAfter: leaf.notAfter,
    })
    this.tell()
  }

  private tell(): void {
    for (const listener of this.listeners) {
      try {
        listener(this.leaf)
      } catch (error) {
        this.options.logger.error('a new certificate could not be taken up', { error })
      }
    }
  }

  private async keepFresh(): Promise<void> {
    this.dueAt = this.renewalTime()
    for (;;) {
      // Short waits: a timer of hours does not notice that the machine slept or its clock was set.
      await this.pause.start(Math.min(LOOK_EVERY_MS, Math.max(0, this.dueAt - this.now())), this.stopping.signal)
      if (this.stopping.signal.aborted) return
      if (this.now() < this.dueAt) continue
      try {
        await this.renew()
        this.backoff.reset()
        this.dueAt = this.renewalTime()
      } catch (error) {
        if (this.stopping.signal.aborted) return
        const wait = this.backoff.next()
        this.dueAt = this.now() + wait
        const fields = { error, notAfter: this.leaf.notAfter, retryInMs: Math.round(wait) }
        if (this.now() < this.leaf.notAfter.getTime()) {
          this.options.logger.warn('the certificate could not be renewed, the old one stays in use', fields)
        } else {
          this.options.logger.error('the certificate has ended and could not be renewed', fields)
        }
      }
    }
  }

  /**
   * Two thirds of the life, a little earlier or later, so that services started together do not come together. Counted from
   * now and not from `notBefore`, which lies some time back: a short certificate would be due again at once.
   */
  private renewalTime(): number {
    const left = this.leaf.notAfter.getTime() - this.now()
    return this.now() + left * (0.63 + Math.random() * 0.07)
  }

  private now(): number {
    return (this.options.now ?? Date.now)()
  }

  private state(): CheckResult {
    const end = this.leaf.notAfter
    if (end.getTime() <= this.now()) {
      return { ok: false, detail: `ended at ${end.toISOString()}; ${this.trouble ?? ''}` }
    }
    const until = `good until ${end.toISOString()}`
    return this.trouble
      ? { ok: true, degraded: true, detail: `${until}; not renewed: ${this.trouble}` }
      : { ok: true, detail: until }
  }
}

const LOOK_EVERY_MS = 30_000
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/** Right after the login Vault may be gone again: it is waited for as at the login, because a new start would need a new
 *  credential. */
async function firstLeaf(vault: VaultClient, options: IdentityOptions): Promise<Leaf> {
  const end = Date.now() + (options.startLimitMs ?? 60_000)
  const backoff = new Backoff(250, 5_000)
  for (;;) {
    try {
      return await signedLeaf(vault, options)
    } catch (error) {
      const wait = backoff.next()
      const hopeful = error instanceof VaultError && error.temporary
      if (!hopeful || options.signal?.aborted || Date.now() + wait > end) throw error
      options.logger.warn('no certificate yet, trying again', { error, retryInMs: Math.round(wait) })
      await sleep(wait, undefined, { signal: options.signal })
    }
  }
}

async function signedLeaf(vault: VaultClient, options: IdentityOptions): Promise<Leaf> {
  const commonName = serviceCommonName(options.name)
  const altNames = options.altNames ?? [commonName, options.name, 'localhost']
  const { keyPem, csrPem } = await newKeyAndCsr(commonName)
  const { data } = await vault.write(
    'pki_int/sign/service',
    {
      csr: csrPem,
      common_name: commonName,
      // The policy compares the whole string.
      alt_names: altNames.join(','),
      ip_sans: '127.0.0.1',
      ...(options.ttl ? { ttl: options.ttl } : {}),
    },
    { signal: options.signal },
  )
  const [certificatePem] = splitPem(String(data.certificate ?? ''))
  if (!certificatePem) throw new CertificateProblem('Vault signed nothing: its answer holds no certificate')
  const chain = Array.isArray(data.ca_chain) ? data.ca_chain.flatMap((pem) => splitPem(String(pem))) : []
  const at = new Date((options.now ?? Date.now)())
  return checkedLeaf({ certificatePem, chain, keyPem, caPem: options.caPem, commonName, altNames, at })
}

/** What a service is about to show to its peers must be what it asked for, and verify to a root that it knows itself. */
function checkedLeaf(signed: {
  readonly certificatePem: string
  readonly chain: readonly string[]
  readonly keyPem: string
  readonly caPem: string
  readonly commonName: string
  readonly altNames: readonly string[]
  readonly at: Date
}): Leaf {
  const certificate = new X509Certificate(signed.certificatePem)
  const refuse = (why: string): never => {
    throw new CertificateProblem(`Vault signed a certificate that cannot be used: ${why}`)
  }
  if (commonNameOf(certificate) !== signed.commonName) {
    refuse(`its name is ${commonNameOf(certificate)}, wanted was ${signed.commonName}`)
  }
  if (!certificate.checkPrivateKey(createPrivateKey(signed.keyPem))) refuse('it belongs to another key')
  const lacking = signed.altNames.filter((name) => certificate.checkHost(name) === undefined)
  if (lacking.length > 0) refuse(`it is not valid for ${lacking.join(', ')}`)
  const usages = certificate.keyUsage ?? []
  if (!usages.includes(SERVER_AUTH) || !usages.includes(CLIENT_AUTH)) {
    refuse('it must be good for both sides of a connection, server and client')
  }
  assertValidAt(certificate, signed.at)
  // Intermediates may come with the answer; a root counts only when it is in the CA file.
  const intermediates = signed.chain.filter((pem) => !isRoot(new X509Certificate(pem)))
  try {
    verifyChain(certificate, [...splitPem(signed.caPem), ...intermediates], signed.at)
  } catch (error) {
    refuse(`${error instanceof Error ? error.message : error}; is ARES_CA_FILE that of this Vault?`)
  }
  return {
    certificatePem: signed.certificatePem,
    chainPem: [signed.certificatePem, ...intermediates].join(''),
    keyPem: signed.keyPem,
    caPem: signed.caPem,
    serial: serialOf(certificate),
    notBefore: new Date(certificate.validFrom),
    notAfter: new Date(certificate.validTo),
    commonName: signed.commonName,
  }
}
