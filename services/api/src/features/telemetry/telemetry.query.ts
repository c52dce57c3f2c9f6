import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import type { QueryStore, StoredSample, Window } from './query.store'
import { MAX_WINDOW_DAYS, type Sample, type TelemetryQuery } from './telemetry.schema'

const DAY_MS = 86_400_000
/** A device's clock may be a little ahead: "now" includes what it just said. */
const AHEAD_MS = 5 * 60_000

/** Reads telemetry. Knows nothing of how it came in. */
export class TelemetryQueryService {
  constructor(
    private readonly store: Pick<QueryStore, 'range' | 'latest'>,
    private readonly now: () => number = Date.now,
  ) {}

  /** One page of a device's samples in a window of time.
   *  @throws DomainError invalid_window, invalid_cursor */
  async range(deviceId: string, query: TelemetryQuery): Promise<Page<Sample>> {
    const place = decodeCursor(query.cursor, CURSOR)
    const window = place ? windowOfCursor(deviceId, query, place) : this.windowOf(deviceId, query)
    const after = place && { capturedAt: new Date(place.at), componentId: place.id }
    const samples = await this.store.range(window, query.limit + 1, after)
    return pageFrom(samples, query.limit, (sample) => cursorOf(window, sample))
  }

  /** The newest sample of each component of a device. */
  async latest(deviceId: string): Promise<Sample[]> {
    return this.store.latest(deviceId)
  }

  private windowOf(deviceId: string, query: TelemetryQuery): Window {
    const to = query.to ?? new Date(this.now() + AHEAD_MS)
    const from = query.from ?? new Date(to.getTime() - DAY_MS)
    if (from >= to) throw new DomainError('invalid', 'invalid_window', '`from` must be before `to`.')
    if (to.getTime() - from.getTime() > MAX_WINDOW_DAYS * DAY_MS + AHEAD_MS) {
      throw new DomainError(
        'invalid',
        'invalid_window',
        `A window has at most ${MAX_WINDOW_DAYS} days: read it in parts.`,
      )
    }
    return { deviceId, component: query.component, from, to, order: query.order ?? 'desc' }
  }
}

/** The window and where the page before ended, so that a default `to` does not move between pages. */
const CURSOR = z.object({
  component: z.string().optional(),
  from: z.number().int(),
  to: z.number().int(),
  order: z.enum(['asc', 'desc']),
  at: z.number().int(),
  id: z.number().int(),
})

const cursorOf = (window: Window, last: StoredSample): z.output<typeof CURSOR> => ({
  component: window.component,
  from: window.from.getTime(),
  to: window.to.getTime(),
  order: window.order,
  at: last.capturedAt.getTime(),
  id: last.componentId,
})

function windowOfCursor(deviceId: string, query: TelemetryQuery, place: z.output<typeof CURSOR>): Window {
  const same =
    (query.component ?? place.component) === place.component &&
    (query.from?.getTime() ?? place.from) === place.from &&
    (query.to?.getTime() ?? place.to) === place.to &&
    (query.order ?? place.order) === place.order
  if (!same) {
    throw new DomainError('invalid', 'invalid_cursor', 'The cursor belongs to another query: begin again without it.')
  }
  return {
    deviceId,
    component: place.component,
    from: new Date(place.from),
    to: new Date(place.to),
    order: place.order,
  }
}
