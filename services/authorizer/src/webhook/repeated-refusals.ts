import { createHash } from 'node:crypto'
import type { ConnectDecision, ConnectRequest } from '../decision/authn'
import type { Reason } from '../decision/decision'

/**
 * Who is refused again and again gets the answer from memory, for a time that doubles with each refusal: it costs no
 * certificate and no signature any more, and it is counted. The answer is not held back: one that is slow blocks the
 * broker's connection for everybody else on it (one of 32, chosen at random), and that is what such a client may want.
 * What slows clients down is the broker: `max_conn_rate` before TLS, and for who has a certificate `flapping_detect`, which
 * counts every CONNECT.
 *
 * Nothing of this can lock out a good device. What is remembered is kept by the address *and* the certificate or token
 * that was shown, so nobody can use up the patience with somebody else; and only for the directory's version that it was
 * decided from, so who is made known comes in at once.
 */
export class RepeatedRefusals {
  private readonly remembered = new Map<string, Remembered>()
  private answered = 0

  constructor(
    private readonly options: {
      /** Refusals before the answer is remembered. */
      readonly from: number
      /** How long at most. */
      readonly longestMs: number
      /** How many clients; beyond it the one that was quiet for longest is forgotten. */
      readonly most: number
    } = { from: 5, longestMs: 30_000, most: 10_000 },
  ) {}

  /** Answers that were given from memory, since the start. */
  get fromMemory(): number {
    return this.answered
  }

  /** The answer for who was refused often enough; undefined: decide. @param version of the directory */
  recall(request: ConnectRequest, version: bigint | undefined, nowMs: number): ConnectDecision | undefined {
    if (this.remembered.size === 0) return undefined
    const known = this.remembered.get(keyOf(request))
    if (!known || known.decision.directoryVersion !== version || nowMs >= known.untilMs) return undefined
    this.answered += 1
    return known.decision
  }

  /** Takes note of a decision that was really made. */
  note(request: ConnectRequest, decision: ConnectDecision, nowMs: number): void {
    if (decision.result === 'allow') {
      if (this.remembered.size > 0) this.remembered.delete(keyOf(request))
      return
    }
    if (OURS.has(decision.reason)) return
    const { from, longestMs, most } = this.options
    const key = keyOf(request)
    const count = (this.remembered.get(key)?.count ?? 0) + 1
    const restMs = count < from ? 0 : Math.min(longestMs, 1_000 * 2 ** Math.min(20, count - from))
    // Taken out and put in again, so that the first one is always the one that was quiet for longest.
    this.remembered.delete(key)
    this.remembered.set(key, { decision, count, untilMs: nowMs + restMs })
    if (this.remembered.size <= most) return
    for (const oldest of this.remembered.keys()) {
      this.remembered.delete(oldest)
      break
    }
  }
}

interface Remembered {
  readonly decision: ConnectDecision
  readonly count: number
  readonly untilMs: number
}

/** Refusals that are not the client's doing. */
const OURS: ReadonlySet<Reason> = new Set(['no_directory', 'directory_too_old', 'overloaded', 'internal_error'])

/** All of what was shown, so that a client id or a user name, which anybody may use, decides nothing by itself. */
const keyOf = ({ peerhost, zone, clientid, username, password, cert_common_name, cert_pem }: ConnectRequest): string =>
  createHash('sha256')
    .update(JSON.stringify([peerhost, zone, clientid, username, password, cert_common_name, cert_pem]))
    .digest('base64')
