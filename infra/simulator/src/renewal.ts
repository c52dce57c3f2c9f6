import { createPrivateKey, X509Certificate } from 'node:crypto'
import { newKeyAndCsr, verifyChain } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import { type DeviceIdentity, identityOf } from './fleet'

/** What comes on `certificate/response`. */
export interface RenewalAnswer {
  readonly serial?: string
  readonly certificate?: string
  readonly chain?: readonly string[]
  readonly expiresAt?: string
  readonly error?: { readonly code: string; readonly detail?: string; readonly retryAfterSeconds?: number }
}

/**
 * The certificate of a device and how it comes to the next one. The old key is kept until a connection with the new one was
 * admitted: until then the old certificate is good, and the way back is open.
 *
 *   SETTLED ──part of its life over──▶ ASKED ──certificate──▶ TRYING ──connected──▶ SETTLED (the old is forgotten)
 *      ▲                                │                        │
 *      └──────────error, no answer──────┘◀───refused 3 times─────┘ (back to the old)
 */
export class Renewal {
  private previous: DeviceIdentity | undefined
  private refusals = 0
  private making: ReturnType<typeof newKeyAndCsr> | undefined
  private asked: Awaited<ReturnType<typeof newKeyAndCsr>> | undefined
  /** Asks no earlier than that. */
  private nextAt: number

  constructor(
    private readonly deviceId: string,
    public identity: DeviceIdentity,
    // Not all devices of a delivery at the same moment.
    private readonly part = 0.5 + Math.random() / 10,
  ) {
    this.nextAt = this.dueAt()
  }

  isDue(now: number): boolean {
    return this.previous === undefined && now >= this.nextAt
  }

  /** @returns the CSR to publish; the same one as long as there is no answer, so that a lost answer costs nothing */
  async begin(now: number): Promise<string> {
    this.nextAt = now + NO_ANSWER_MS
    // Two questions at once are one and the same.
    this.making ??= newKeyAndCsr(deviceCommonName(this.deviceId))
    this.asked = await this.making
    return this.asked.csrPem
  }

  /** @returns whether there is a new certificate to connect with */
  answered(answer: RenewalAnswer, now: number): boolean {
    const { asked } = this
    // A second answer to the same question, or one from before a restart.
    if (!asked || this.previous) return false
    if (answer.error) {
      this.nextAt = now + (answer.error.retryAfterSeconds ?? RETRY_S) * 1_000
      return false
    }
    const { serial, certificate, chain = [], expiresAt } = answer
    if (!serial || !certificate || !expiresAt || !this.isUsable(certificate, chain, asked.keyPem)) return false
    this.previous = this.identity
    this.identity = identityOf(asked.keyPem, { serial, certificate, chain, expiresAt })
    this.asked = undefined
    this.making = undefined
    this.refusals = 0
    return true
  }

  /** @returns whether this is the first connection with a new certificate */
  connected(): boolean {
    const isNew = this.previous !== undefined
    if (isNew) this.nextAt = this.dueAt()
    this.previous = undefined
    return isNew
  }

  /** A connection failed. @returns whether the device is back at its old certificate */
  refused(): boolean {
    if (!this.previous) return false
    // The authorizers hear of a new certificate within milliseconds, but a refusal may be about something else.
    this.refusals += 1
    if (this.refusals < REFUSALS_BEFORE_BACK) return false
    this.identity = this.previous
    this.previous = undefined
    this.nextAt = Date.now() + RETRY_S * 1_000
    return true
  }

  /** The answer is for our key, in our name, from the CA that we trust already. */
  private isUsable(certificate: string, chain: readonly string[], keyPem: string): boolean {
    try {
      const leaf = new X509Certificate(certificate)
      const [intermediate = ''] = chain
      verifyChain(leaf, [intermediate, this.identity.caPem].join('\n'))
      return leaf.subject === `CN=${deviceCommonName(this.deviceId)}` && leaf.checkPrivateKey(createPrivateKey(keyPem))
    } catch {
      return false
    }
  }

  private dueAt(): number {
    const { receivedAt, expiresAt } = this.identity
    return receivedAt.getTime() + (expiresAt.getTime() - receivedAt.getTime()) * this.part
  }
}

const NO_ANSWER_MS = 30_000
const RETRY_S = 60
const REFUSALS_BEFORE_BACK = 3
