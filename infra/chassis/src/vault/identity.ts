import { createPrivateKey, X509Certificate } from 'node:crypto'
import { type ServiceName, serviceCommonName } from '@ares/proto'
import type { Registry } from 'prom-client'
import { Backoff } from '../backoff'
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

export interface IdentityOptions {
  readonly name: ServiceName
  readonly vaultAddress: string
  /** CA of the Vault server's own certificate; left out for one that a public CA signed, or plain HTTP in tests. */
  readonly vaultCaPem?: string
  /** Root and intermediate, see loadCaFile. */
  readonly caPem: string
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
  readonly signal?: AbortSignal
}

/**
 * Who a service is: a login at Vault whose token is kept alive, and a certificate whose key is made here and stays in memory.
 *
 *   VALID ──two thirds of its life──▶ RENEWING ──new one checked──▶ VALID (the listeners get it)
 *                                        └──failed──▶ wait a little, RENEWING again; the old one stays in use
 *
 * With Vault away everything goes on until the certificate ends. The checks `vault-token` and `certificate` say how it stands.
 */
export class ServiceIdentity implements LeafSource {
  private readonly listeners = new Set<(leaf: Leaf) => void>()
  private readonly stopping = new AbortController()
  private readonly pause = new Pause()
  private running: Promise<void> = Promise.resolve()
  private trouble: string | undefined

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
    const vault = createVaultClient({
      address: options.vaultAddress,
      caPem: options.vaultCaPem,
      onError: (error) => {
        metrics.vaultErrors.inc({ code: error.code })
        if (error.code === 'token_gone') session?.wake()
      },
    })
    try {
      session = await VaultSession.open({ ...options, vault, metrics })
      const leaf = await signedLeaf(vault, options)
      const identity = new ServiceIdentity(vault, session, options, metrics, leaf)
      identity.take(leaf)
      options.health.check('certificate', () => identity.state())
      identity.running = identity.keepFresh()
      return identity
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
      this.take(await signedLeaf(this.vault, this.options))
      this.trouble = undefined
    } catch (error) {
      this.metrics.certificateRenewals.inc({ result: 'failed' })
      this.trouble = error instanceof Error ? error.message : String(error)
      throw error
    }
  }

  async stop(): Promise<void> {
    this.stopping.abort()
    await this.running
    await this.session.stop()
    this.vault.close()
    this.listeners.clear()
  }

  private take(leaf: Leaf): void {
    this.leaf = leaf
    this.metrics.certificateRenewals.inc({ result: 'ok' })
    this.metrics.certificateEnd.set(leaf.notAfter.getTime() / 1_000)
    this.options.logger.info('certificate in use', {
      commonName: leaf.commonName,
      serial: leaf.serial,
      notAfter: leaf.notAfter,
    })
    for (const listener of this.listeners) {
      try {
        listener(leaf)
      } catch (error) {
        this.options.logger.error('a new certificate could not be taken up', { error })
      }
    }
  }

  private async keepFresh(): Promise<void> {
    const backoff = new Backoff(1_000, 60_000)
    let dueAt = renewalTime(this.leaf)
    for (;;) {
      // Short waits: a timer of hours does not notice that the machine slept or its clock was set.
      await this.pause.start(Math.min(LOOK_EVERY_MS, Math.max(0, dueAt - Date.now())), this.stopping.signal)
      if (this.stopping.signal.aborted) return
      if (Date.now() < dueAt) continue
      try {
        await this.renew()
        backoff.reset()
        dueAt = renewalTime(this.leaf)
      } catch (error) {
        if (this.stopping.signal.aborted) return
        const wait = backoff.next()
        dueAt = Date.now() + wait
        const fields = { error, notAfter: this.leaf.notAfter, retryInMs: Math.round(wait) }
        if (Date.now() < this.leaf.notAfter.getTime()) {
          this.options.logger.warn('the certificate could not be renewed, the old one stays in use', fields)
        } else {
          this.options.logger.error('the certificate has ended and could not be renewed', fields)
        }
      }
    }
  }

  private state(): CheckResult {
    const end = this.leaf.notAfter
    if (end <= new Date()) return { ok: false, detail: `ended at ${end.toISOString()}; ${this.trouble ?? ''}` }
    const until = `good until ${end.toISOString()}`
    return { ok: true, detail: this.trouble ? `${until}; not renewed: ${this.trouble}` : until }
  }
}

const LOOK_EVERY_MS = 30_000
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/**
 * Two thirds of the life, a little earlier or later, so that services started together do not come together. Counted from
 * now and not from `notBefore`, which lies some time back: a short certificate would be due again at once.
 */
function renewalTime(leaf: Leaf): number {
  const left = leaf.notAfter.getTime() - Date.now()
  return Date.now() + left * (0.63 + Math.random() * 0.07)
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
  return checkedLeaf({ certificatePem, chain, keyPem, caPem: options.caPem, commonName, altNames })
}

/** What a service is about to show to its peers must be what it asked for, and verify to a root that it knows itself. */
function checkedLeaf(signed: {
  readonly certificatePem: string
  readonly chain: readonly string[]
  readonly keyPem: string
  readonly caPem: string
  readonly commonName: string
  readonly altNames: readonly string[]
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
  assertValidAt(certificate, new Date())
  // Intermediates may come with the answer; a root counts only when it is in the CA file.
  const intermediates = signed.chain.filter((pem) => !isRoot(new X509Certificate(pem)))
  try {
    verifyChain(certificate, [...splitPem(signed.caPem), ...intermediates])
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
