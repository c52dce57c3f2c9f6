import { defineRoute, type Route, scoped } from '../../http/route'
import type { RollupQueries } from './rollups.query'
import { rollupPage, rollupQuery } from './rollups.schema'

export const rollupRoutes = (rollups: RollupQueries): Route[] => [
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/telemetry/rollups',
    tag: 'telemetry',
    summary: 'Reads count, minimum, maximum, sum and last value by the minute or by the hour, the oldest first.',
    description:
      'A minute appears within half a minute of its end, an hour grows with its minutes. Late data corrects both. Minutes are kept as long as the telemetry, hours for 400 days.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: rollupQuery,
    answer: { status: 200, body: rollupPage, description: 'A page of buckets.' },
    problems: { invalid_window: 'The window is empty or too long.', invalid_cursor: 'The cursor is not one of ours.' },
    handle: ({ params, query }) => rollups.read(params.deviceId, query),
  }),
]
