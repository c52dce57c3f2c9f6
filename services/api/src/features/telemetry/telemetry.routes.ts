import { defineRoute, type Route, scoped } from '../../http/route'
import type { TelemetryQueryService } from './telemetry.query'
import { latestSamples, samplePage, telemetryQuery } from './telemetry.schema'

export const telemetryRoutes = (service: TelemetryQueryService): Route[] => [
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/telemetry',
    tag: 'telemetry',
    summary: 'Reads the telemetry of a device in a window of time.',
    access: scoped('device', 'deviceId', 'viewer'),
    query: telemetryQuery,
    answer: { status: 200, body: samplePage, description: 'A page of samples.' },
    problems: { invalid_window: 'The window is empty or too long.', invalid_cursor: 'The cursor is of another query.' },
    handle: ({ params, query }) => service.range(params.deviceId, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/telemetry/latest',
    tag: 'telemetry',
    summary: 'Reads the newest sample of each component of a device.',
    access: scoped('device', 'deviceId', 'viewer'),
    answer: { status: 200, body: latestSamples, description: 'One sample for each component that has sent any.' },
    handle: async ({ params }) => ({ items: await service.latest(params.deviceId) }),
  }),
]
