import { DomainError } from '@ares/chassis'
import { z } from 'zod'
import { decodeCursor, pageFrom } from '../../http/shapes'
import { MAX_WINDOW_DAYS } from '../telemetry/telemetry.schema'
import { MAX_GAPS, type Reconciliation, type ReconciliationQuery } from './reconciliation.schema'
import type { Counts, DeviceScope, HourWindow, ReconciliationStore } from './reconciliation.store'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** Says whether everything that came in is accounted for, and which sequence numbers never came. */
export class ReconciliationService {
  constructor(
    private readonly store: Pick<ReconciliationStore, 'hours' | 'totals' | 'gaps'>,
    private readonly now: () => number = Date.now,
  ) {}

  /** @throws DomainError invalid_window, invalid_cursor */
  async reconcile(scope: DeviceScope, query: ReconciliationQuery): Promise<Reconciliation> {
    const place = decodeCursor(query.cursor, CURSOR)
    const window = place ? { from: new Date(place.from), to: new Date(place.to) } : this.windowOf(query)
    const after = place && { hour: new Date(place.hour), deviceId: place.deviceId }
    const [rows, totals, gaps] = await Promise.all([
      this.store.hours(scope, window, query.limit + 1, after),
      this.store.totals(scope, window),
      place ? [] : this.store.gaps(scope, window, MAX_GAPS),
    ])
    const { items, nextCursor } = pageFrom(rows, query.limit, ({ hour, deviceId }) => ({
      from: window.from.getTime(),
      to: window.to.getTime(),
      hour: hour.getTime(),
      deviceId,
    }))
    return {
      ...window,
      totals: { ...totals, closes: closes(totals) },
      items: items.map((item) => ({ ...item, closes: closes(item) })),
      gaps: [...gaps],
      nextCursor,
    }
  }

  /** Whole hours: an hour is counted as one. */
  private windowOf({ from, to }: ReconciliationQuery): HourWindow {
    const end = to?.getTime() ?? this.now() + HOUR_MS
    const begin = Math.floor((from?.getTime() ?? end - DAY_MS) / HOUR_MS) * HOUR_MS
    if (begin >= end) throw new DomainError('invalid', 'invalid_window', '`from` must be before `to`.')
    if (end - begin > MAX_WINDOW_DAYS * DAY_MS + 2 * HOUR_MS) {
      const message = `A window has at most ${MAX_WINDOW_DAYS} days: read it in parts.`
      throw new DomainError('invalid', 'invalid_window', message)
    }
    return { from: new Date(begin), to: new Date(end) }
  }
}

const closes = ({ received, committed, duplicate, deadLettered }: Counts): boolean =>
  received === committed + duplicate + deadLettered

const CURSOR = z.object({ from: z.number().int(), to: z.number().int(), hour: z.number().int(), deviceId: z.string() })
