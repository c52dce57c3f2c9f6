import { DomainError } from '@ares/chassis'

/**
 * What a request for renewal comes to. Of one device:
 *
 *   CURRENT ──half its life over, new CSR──▶ CURRENT + SUCCESSOR ──first connection with SUCCESSOR──▶ SUCCESSOR is CURRENT
 *                                               │                                                    (the old: retired)
 *                                               ├──the same key again──▶ the same answer
 *                                               ├──another key, within a minute──▶ refused: one of two requests at once
 *                                               └──another key, later──▶ SUCCESSOR is retired unused, a new one is made
 *
 * The last way is for a device that lost its new key before it could use it: without it, it would be shut out when the old
 * certificate ends. So at most two are good at a time, and none that was just handed out is taken away.
 */
export type RenewalPlan =
  | { readonly kind: 'repeat'; readonly serial: string }
  | { readonly kind: 'sign'; readonly supersedes: string; readonly unused: readonly string[] }

/** A certificate of the device that is active and has not ended. */
export interface GoodCertificate {
  readonly serial: string
  readonly publicKeyHash: string | null
  readonly supersedes: string | null
  readonly createdAt: Date
  readonly notAfter: Date
  /** First and last connection with it. */
  readonly firstSeenAt: Date | null
  readonly lastSeenAt: Date | null
}

export interface RenewalRules {
  /** Which part of its life a certificate must have behind it, 0 to 1. */
  readonly dueAfter: number
  /** How long a new certificate cannot be replaced by another one. */
  readonly settleMs: number
}

export const RENEWAL_RULES: RenewalRules = { dueAfter: 0.5, settleMs: 60_000 }

/** @throws DomainError `certificate_missing`, `renewal_too_early`, `renewal_in_progress` */
export function planRenewal(
  certificates: readonly GoodCertificate[],
  publicKeyHash: string,
  now: Date,
  rules: RenewalRules = RENEWAL_RULES,
): RenewalPlan {
  const current = currentOf(certificates)
  if (!current) {
    throw new DomainError('conflict', 'certificate_missing', 'The device has no certificate that is good: enroll it.')
  }
  const dueAt = (certificate: GoodCertificate) => lifePart(certificate, rules.dueAfter)
  const same = certificates.find((one) => one.publicKeyHash === publicKeyHash && dueAt(one) > now)
  if (same) return { kind: 'repeat', serial: same.serial }
  if (dueAt(current) > now) throw notBefore('renewal_too_early', dueAt(current), now)
  const unused = certificates.filter((one) => isUnusedSuccessor(one) && one.createdAt > current.createdAt)
  const settledAt = new Date(Math.max(0, ...unused.map((one) => one.createdAt.getTime() + rules.settleMs)))
  if (settledAt > now) throw notBefore('renewal_in_progress', settledAt, now)
  return { kind: 'sign', supersedes: current.serial, unused: unused.map((one) => one.serial) }
}

/** The one the device was last seen with; of those never seen, the newest that is no successor. */
function currentOf(certificates: readonly GoodCertificate[]): GoodCertificate | undefined {
  const seen = (one: GoodCertificate) => one.lastSeenAt?.getTime() ?? one.firstSeenAt?.getTime() ?? 0
  return [...certificates].sort(
    (a, b) =>
      seen(b) - seen(a) ||
      Number(isUnusedSuccessor(a)) - Number(isUnusedSuccessor(b)) ||
      b.createdAt.getTime() - a.createdAt.getTime(),
  )[0]
}

const isUnusedSuccessor = (one: GoodCertificate): boolean => one.supersedes !== null && one.firstSeenAt === null

/** Counted from when it was signed: its `notBefore` is set back for clocks that are slow. */
const lifePart = ({ createdAt, notAfter }: GoodCertificate, part: number): Date =>
  new Date(createdAt.getTime() + (notAfter.getTime() - createdAt.getTime()) * part)

function notBefore(code: 'renewal_too_early' | 'renewal_in_progress', when: Date, now: Date): DomainError {
  const why =
    code === 'renewal_too_early'
      ? 'The certificate has more than half of its life before it.'
      : 'Another new certificate was signed just now: use that one.'
  return new DomainError('conflict', code, `${why} Ask again at ${when.toISOString()}.`, {
    retryAfterSeconds: Math.max(1, Math.ceil((when.getTime() - now.getTime()) / 1_000)),
  })
}
