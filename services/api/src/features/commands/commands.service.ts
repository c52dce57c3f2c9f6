import { DomainError, type Logger } from '@ares/chassis'
import { type CommandResponse, ResponseStatus } from '@ares/proto/commands/v1/commands'
import { z } from 'zod'
import { isUniqueViolation } from '../../database'
import { isDataFault } from '../../database/faults'
import type { UserActor } from '../../http/route'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { newId } from '../../ids'
import type { AuditService } from '../audit/audit.service'
import type { CommandDelivery } from './command-delivery'
import { type Command, type CommandQuery, isStorableJson, type NewCommand } from './commands.schema'
import type { AnswerToWrite, CommandStore } from './commands.store'

export interface CommandServiceOptions {
  readonly logger: Pick<Logger, 'warn'>
  /** How often what is still pending is tried again and what is over is ended. */
  readonly sweepMs?: number
  /** A command younger than this is being delivered by the call that created it. */
  readonly settleMs?: number
}

/** After its end a published command may still be answered for this long. */
const ANSWER_GRACE_MS = 60_000
const MAX_RESPONSES = 5_000

/**
 * Commands of people to devices.
 *
 *   pending ──the broker took it for the device──▶ published ──▶ progress ──▶ succeeded | failed
 *      │  ▲                                            │  (an answer may overtake any of these)
 *      │  └─ device not connected, no listener: tried again
 *      └──────────── past its end ─────────────────────┴──▶ expired
 */
export class CommandService {
  private sweeping: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  /** Where the last sweep stopped, so that many pending commands do not keep the later ones waiting. */
  private sweptTo: string | undefined

  constructor(
    private readonly store: CommandStore,
    private readonly delivery: CommandDelivery,
    private readonly audit: Pick<AuditService, 'record'>,
    private readonly options: CommandServiceOptions,
  ) {}

  start(): void {
    this.timer = setInterval(() => void this.sweep(), this.options.sweepMs ?? 5_000).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.timer)
    await this.sweeping
  }

  /**
   * Stores a command and tries to deliver it at once. One that cannot be delivered now stays pending until its end.
   * The same idempotency key on the same device brings the same command, and no second one.
   * @throws DomainError device_disabled; idempotency_key_reused when the key came with another command
   */
  async command(
    actor: UserActor,
    organizationId: string,
    deviceId: string,
    wanted: NewCommand,
    idempotencyKey?: string,
  ): Promise<Command> {
    if ((await this.store.deviceState(deviceId)) !== 'active') {
      throw new DomainError('precondition', 'device_disabled', 'The device is switched off: it takes no commands.')
    }
    const before = idempotencyKey && (await this.store.findByKey(deviceId, idempotencyKey))
    if (before) return sameAs(before, wanted)
    const id = newId()
    const toWrite = {
      id,
      deviceId,
      name: wanted.name,
      arguments: wanted.arguments,
      requestedBy: actor.id,
      idempotencyKey: idempotencyKey ?? null,
      expiresAt: new Date(Date.now() + wanted.expiresInSeconds * 1_000),
    }
    try {
      const created = await this.store.create(toWrite, (tx) =>
        this.audit.record(tx, {
          actor,
          action: 'command.created',
          subject: { kind: 'device', id: deviceId },
          organizationId,
          detail: { commandId: id, name: wanted.name },
        }),
      )
      if ((await this.deliver(created)) === 'published') await this.store.markPublished(id)
    } catch (error) {
      if (!idempotencyKey || !isUniqueViolation(error)) throw error
      const first = await this.store.findByKey(deviceId, idempotencyKey) // the same call, at the same moment
      if (!first) throw error
      return sameAs(first, wanted)
    }
    return this.get(deviceId, id)
  }

  /** @throws DomainError command_not_found */
  async get(deviceId: string, id: string): Promise<Command> {
    const command = await this.store.find(deviceId, id)
    if (!command) throw new DomainError('not_found', 'command_not_found', 'The device has no such command.')
    return command
  }

  /** The newest first. */
  async list(deviceId: string, query: CommandQuery): Promise<Page<Command>> {
    const before = decodeCursor(query.cursor, z.uuid())
    const rows = await this.store.list(deviceId, query.state, query.limit + 1, before)
    return pageFrom(rows, query.limit, (command) => command.id)
  }

  /** Stores what devices answered. @returns how many commands have a new state */
  async recordResponses(responses: readonly CommandResponse[]): Promise<number> {
    if (responses.length === 0 || responses.length > MAX_RESPONSES) {
      throw new DomainError('invalid', 'invalid_responses', `1 to ${MAX_RESPONSES} responses are taken at once.`)
    }
    const answers = new Map<string, AnswerToWrite>()
    for (const response of responses) {
      const answer = answerOf(response)
      const key = `${response.deviceId}/${response.commandId}`
      const before = answers.get(key)
      if (answer && (!before || before.state === 'progress')) answers.set(key, answer)
    }
    return answers.size === 0 ? 0 : this.recordAnswers([...answers.values()])
  }

  /** What PostgreSQL rejects in one result (nested too deep, say) must not stop the answers beside it. */
  private async recordAnswers(answers: readonly AnswerToWrite[]): Promise<number> {
    try {
      return await this.store.recordAnswers(answers)
    } catch (error) {
      if (!isDataFault(error)) throw error
      if (answers.length === 1 && answers[0]) return this.store.recordAnswers([withoutResult(answers[0])])
      let changed = 0
      for (const answer of answers) changed += await this.recordAnswers([answer])
      return changed
    }
  }

  /** Tries what is still pending again, and ends what is over. */
  sweep(): Promise<void> {
    const sweeping = this.sweeping ?? this.sweepLogged()
    this.sweeping = sweeping
    return sweeping
  }

  private async sweepLogged(): Promise<void> {
    try {
      await this.sweepOnce()
    } catch (error) {
      this.options.logger.warn('pending commands were not tried again', { error: String(error) })
    } finally {
      this.sweeping = undefined
    }
  }

  private async sweepOnce(): Promise<void> {
    await this.store.expire(new Date(), ANSWER_GRACE_MS)
    const until = Date.now() + (this.options.sweepMs ?? 5_000)
    const createdBefore = new Date(Date.now() - (this.options.settleMs ?? 10_000))
    while (Date.now() < until) {
      this.sweptTo = await this.store.withNextPending(this.sweptTo, createdBefore, (command) => this.deliver(command))
      if (this.sweptTo === undefined) return
    }
  }

  /** Never throws: the command is stored, and is tried again. */
  private async deliver(command: Command): Promise<'published' | 'pending'> {
    try {
      const delivery = await this.delivery.deliver({
        deviceId: command.deviceId,
        commandId: command.id,
        name: command.name,
        argumentsJson: JSON.stringify(command.arguments),
        expiresAt: command.expiresAt,
      })
      return delivery === 'taken' ? 'published' : 'pending'
    } catch (error) {
      this.options.logger.warn('a command could not be delivered, it is tried again', {
        commandId: command.id,
        error: String(error),
      })
      return 'pending'
    }
  }
}

function sameAs(before: Command, wanted: NewCommand): Command {
  if (before.name === wanted.name && sorted(before.arguments) === sorted(wanted.arguments)) return before
  throw new DomainError('conflict', 'idempotency_key_reused', 'This Idempotency-Key came with another command before.')
}

/** JSON with the keys in order: jsonb keeps them in an order of its own. */
const sorted = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )

const STATE_OF: Readonly<Partial<Record<ResponseStatus, AnswerToWrite['state']>>> = {
  [ResponseStatus.RESPONSE_STATUS_PROGRESS]: 'progress',
  [ResponseStatus.RESPONSE_STATUS_SUCCEEDED]: 'succeeded',
  [ResponseStatus.RESPONSE_STATUS_FAILED]: 'failed',
}

/** Undefined: no answer to any command. */
function answerOf(response: CommandResponse): AnswerToWrite | undefined {
  const { deviceId, commandId, receivedAt } = response
  const state = STATE_OF[response.status]
  if (!state || !UUID.test(deviceId) || !UUID.test(commandId)) return undefined
  const result = storableJson(response.resultJson)
  const error = response.error.replaceAll('\u0000', '\uFFFD').slice(0, 1_024) || null
  const answer = { deviceId, commandId, state, result: result ?? null, error, respondedAt: receivedAt ?? new Date() }
  return result === undefined ? withoutResult(answer) : answer
}

const withoutResult = (answer: AnswerToWrite): AnswerToWrite => ({
  ...answer,
  result: null,
  error: answer.error ?? 'The result that came with it cannot be stored.',
})

/** @returns null for none, undefined for what PostgreSQL would reject */
function storableJson(text: string): string | null | undefined {
  if (text === '') return null
  try {
    const value: unknown = JSON.parse(text)
    return isStorableJson(value) ? JSON.stringify(value) : undefined
  } catch {
    return undefined
  }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
