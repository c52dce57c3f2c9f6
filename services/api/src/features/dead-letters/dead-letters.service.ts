import { isUtf8 } from 'node:buffer'
import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import type { UserActor } from '../../http/route'
import { decodeCursor, encodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { AuditService } from '../audit/audit.service'
import type { ReplayableLetter, ReplayOutcome, TelemetryReplay } from '../telemetry/telemetry.replay'
import type { DeadLetter, DeadLetterQuery, ReplayRequest, ReplaySummary } from './dead-letters.schema'
import type { DeadLetterFilter, DeadLetterStore, StoredDeadLetter } from './dead-letters.store'

const LETTERS_AT_ONCE = 500

/** Whose letters. */
export type LetterScope = Pick<DeadLetterFilter, 'deviceId' | 'organizationId' | 'memberId'>

export interface ReplayParts {
  readonly telemetry: Pick<TelemetryReplay, 'replay'>
  readonly audit: AuditService
  readonly onReplayed?: (result: string) => void
}

/**
 * Shows what did not become telemetry, and why; stores it after its cause is mended.
 *
 *   OPEN ──replayed, the report passes the checks now──▶ REPLAYED (committed | duplicate)
 *     └──replayed, still refused──▶ OPEN
 *
 * Both end with their retention, or when the organization's letters take more room than it has for them.
 */
export class DeadLetterService {
  constructor(
    private readonly store: Pick<DeadLetterStore, 'list' | 'open' | 'find' | 'mark'>,
    private readonly parts: ReplayParts,
  ) {}

  /** One page of dead letters, the newest first. @throws DomainError invalid_cursor */
  async list(scope: LetterScope, query: DeadLetterQuery): Promise<Page<DeadLetter>> {
    const before = decodeCursor(query.cursor, CURSOR)
    const { items, nextCursor } = pageFrom(
      await this.store.list({ ...query, ...scope }, query.limit + 1, before),
      query.limit,
      ({ id }) => id,
    )
    return { items: items.map(shown), nextCursor }
  }

  /** @throws DomainError dead_letter_not_found */
  async get(deviceId: string, id: string): Promise<DeadLetter> {
    const found = await this.store.find(id, deviceId)
    if (!found) throw notThere()
    return shown(found)
  }

  /** Stores one letter as telemetry.
   *  @throws DomainError dead_letter_not_found, already_replayed, not_readable, still_refused */
  async replay(actor: UserActor, organizationId: string, id: string): Promise<{ id: string; result: Stored }> {
    const letter = await this.store.find(id)
    if (!letter) throw notThere()
    if (letter.replayedAt) throw replayedBefore(letter.replayedAt)
    if (!isReadable(letter)) {
      const message = 'No report could be read in this letter: there is nothing to store.'
      throw new DomainError('conflict', 'not_readable', message)
    }
    const [outcome] = await this.storeAll(actor, [letter])
    if (!outcome || outcome.result === 'replayed_before') throw replayedBefore()
    if (outcome.result === 'refused') {
      throw new DomainError(
        'conflict',
        'still_refused',
        `Its cause is not mended: ${outcome.reason}, ${outcome.detail}.`,
      )
    }
    await this.record(actor, organizationId, 'dead_letter.replayed', { kind: 'dead_letter', id }, outcome)
    return { id, result: outcome.result }
  }

  /** Stores the open letters of a scope, the oldest first; those that are still refused stay open.
   *  @throws DomainError invalid_cursor */
  async replayAll(
    actor: UserActor,
    organizationId: string,
    scope: LetterScope,
    request: ReplayRequest,
  ): Promise<ReplaySummary> {
    const summary = {
      looked: 0,
      committed: 0,
      duplicate: 0,
      refused: 0,
      unreadable: 0,
      reasons: new Map<string, number>(),
    }
    let after = decodeCursor(request.cursor, CURSOR)
    let more = true
    while (more && summary.looked < request.limit) {
      const wanted = Math.min(LETTERS_AT_ONCE, request.limit - summary.looked)
      const letters = await this.store.open({ ...request, ...scope }, wanted, after)
      more = letters.length === wanted
      after = letters.at(-1)?.id ?? after
      const readable = letters.filter(isReadable)
      summary.looked += letters.length
      summary.unreadable += letters.length - readable.length
      if (readable.length > 0) for (const outcome of await this.storeAll(actor, readable)) count(summary, outcome)
    }
    const { reasons, ...counts } = summary
    const subject = scope.deviceId
      ? { kind: 'device', id: scope.deviceId }
      : { kind: 'organization', id: organizationId }
    await this.record(actor, organizationId, 'dead_letters.replayed', subject, counts)
    return {
      ...counts,
      reasons: Object.fromEntries(reasons),
      nextCursor: more && after !== undefined ? encodeCursor(after) : null,
    }
  }

  private async storeAll(actor: UserActor, letters: readonly ReplayableLetter[]): Promise<ReplayOutcome[]> {
    const outcomes = await this.parts.telemetry.replay(letters, (client, marks) =>
      this.store.mark(client, marks, actor.id),
    )
    for (const { result } of outcomes) this.parts.onReplayed?.(result)
    return outcomes
  }

  private async record(
    actor: UserActor,
    organizationId: string,
    action: string,
    subject: { readonly kind: string; readonly id: string },
    detail: Readonly<Record<string, string | number>>,
  ): Promise<void> {
    await this.parts.audit.recordAll([{ actor, action, subject, organizationId, detail }])
  }
}

type Stored = 'committed' | 'duplicate'

interface Tally {
  committed: number
  duplicate: number
  refused: number
  readonly reasons: Map<string, number>
}

function count(tally: Tally, outcome: ReplayOutcome): void {
  if (outcome.result === 'replayed_before') return // whoever replayed it counts it
  tally[outcome.result] += 1
  if (outcome.result === 'refused') tally.reasons.set(outcome.reason, (tally.reasons.get(outcome.reason) ?? 0) + 1)
}

const CURSOR = z.string().regex(/^\d{1,18}$/)

const isReadable = (letter: StoredDeadLetter): letter is StoredDeadLetter & { readonly report: Buffer } =>
  letter.report !== null

const notThere = () => new DomainError('not_found', 'dead_letter_not_found', 'There is no such dead letter.')

const replayedBefore = (at?: Date) =>
  new DomainError('conflict', 'already_replayed', `It was replayed before${at ? `, at ${at.toISOString()}` : ''}.`)

const shown = ({ payload, report, ...letter }: StoredDeadLetter): DeadLetter => ({
  ...letter,
  payload: payload.toString('base64'),
  text: isUtf8(payload) ? payload.toString('utf8') : null,
  readable: report !== null,
})
