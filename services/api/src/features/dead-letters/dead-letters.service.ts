import { isUtf8 } from 'node:buffer'
import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { DeadLetter, DeadLetterQuery } from './dead-letters.schema'
import type { DeadLetterStore, StoredDeadLetter } from './dead-letters.store'

/** Shows what did not become telemetry, and why. */
export class DeadLetterService {
  constructor(private readonly store: Pick<DeadLetterStore, 'list' | 'find'>) {}

  /** One page of a device's dead letters, the newest first. @throws DomainError invalid_cursor */
  async list(deviceId: string, query: DeadLetterQuery): Promise<Page<DeadLetter>> {
    const before = decodeCursor(query.cursor, CURSOR)
    const { items, nextCursor } = pageFrom(
      await this.store.list(deviceId, query, query.limit + 1, before),
      query.limit,
      ({ id }) => id,
    )
    return { items: items.map(shown), nextCursor }
  }

  /** @throws DomainError dead_letter_not_found */
  async get(deviceId: string, id: string): Promise<DeadLetter> {
    const found = await this.store.find(deviceId, id)
    if (!found) throw new DomainError('not_found', 'dead_letter_not_found', 'The device has no such dead letter.')
    return shown(found)
  }
}

const CURSOR = z.string().regex(/^\d{1,18}$/)

const shown = ({ payload, ...letter }: StoredDeadLetter): DeadLetter => ({
  ...letter,
  payload: payload.toString('base64'),
  text: isUtf8(payload) ? payload.toString('utf8') : null,
})
