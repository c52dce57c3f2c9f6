import { DomainError, unaryHandler } from '@ares/chassis'
import { topics } from '@ares/proto'
import type { CommandDeliveryServiceServer, PublishRequest, PublishResponse } from '@ares/proto/commands/v1/commands'
import { type MqttSession, NoSession } from '../mqtt/session'

/** CommandDeliveryService: api hands a command over, the answer comes when the broker has acknowledged it. */
export function commandDelivery(session: Pick<MqttSession, 'publishAcknowledged'>): CommandDeliveryServiceServer {
  return {
    publish: unaryHandler<PublishRequest, PublishResponse>(async (request, call) => {
      const payload = payloadOf(request)
      const expirySeconds = secondsLeft(request.expiresAt)
      const waitMs = Math.min(ACKNOWLEDGE_LIMIT_MS, remainingMs(call.getDeadline()))
      try {
        const topic = topics.command(request.deviceId, request.commandId)
        return { taken: await session.publishAcknowledged(topic, payload, { expirySeconds, waitMs }) }
      } catch (error) {
        if (error instanceof NoSession) throw new DomainError('unavailable', 'no_session', error.message)
        throw new DomainError(
          'unavailable',
          'not_published',
          'the broker has refused the command',
          {},
          { cause: error },
        )
      }
    }),
  }
}

const ACKNOWLEDGE_LIMIT_MS = 5_000

function payloadOf({ name, argumentsJson, expiresAt }: PublishRequest): string {
  const given = argumentsOf(argumentsJson)
  return JSON.stringify({ name, arguments: given, expiresAt: expiresAt?.toISOString() })
}

function argumentsOf(json: string): unknown {
  if (json === '') return {}
  try {
    return JSON.parse(json)
  } catch {
    throw new DomainError('invalid', 'bad_arguments', 'arguments_json is not JSON')
  }
}

/** Whole seconds until the command expires, at least one. */
function secondsLeft(expiresAt: Date | undefined): number | undefined {
  if (!expiresAt) return undefined
  const leftMs = expiresAt.getTime() - Date.now()
  if (leftMs <= 0) throw new DomainError('precondition', 'expired', `the command expired at ${expiresAt.toISOString()}`)
  return Math.ceil(leftMs / 1_000)
}

/** A little before the caller gives up, so that he hears why. */
function remainingMs(deadline: Date | number): number {
  const left = new Date(deadline).getTime() - Date.now()
  return Number.isFinite(left) ? Math.max(50, left - 100) : ACKNOWLEDGE_LIMIT_MS
}
