import { defineRoute, type Route, scoped } from '../../http/route'
import type { OverBudgetList } from '../telemetry/over-budget'
import {
  overBudgetDevices,
  reconciliation,
  reconciliationQuery,
  reconciliationQueryOfAll,
} from './reconciliation.schema'
import type { ReconciliationService } from './reconciliation.service'

const tag = 'reconciliation'
const answer = { status: 200, body: reconciliation, description: 'Counts by device and hour, and gaps.' } as const
const problems = { invalid_window: 'The window is empty or too long.' }
const description =
  'received = committed + duplicate + deadLettered holds for every device and hour: whatever was acknowledged is one of the three. A replayed dead letter moves from deadLettered to committed or duplicate, in the hour it was received.'

export const reconciliationRoutes = (
  service: ReconciliationService,
  overBudget: Pick<OverBudgetList, 'list'>,
): Route[] => [
  defineRoute({
    method: 'get',
    path: '/telemetry/reconciliation',
    tag,
    summary: 'Reconciles what was received with what was stored, for all devices that you may see.',
    description,
    access: 'signed-in',
    query: reconciliationQueryOfAll,
    answer,
    problems,
    handle: ({ actor, query }) => {
      const { organizationId, deviceId } = query
      return service.reconcile({ memberId: actor.id, organizationId, deviceId }, query)
    },
  }),
  defineRoute({
    method: 'get',
    path: '/organizations/{organizationId}/telemetry/reconciliation',
    tag,
    summary: 'Reconciles what was received from the devices of an organization with what was stored.',
    description,
    access: scoped('organization', 'organizationId', 'viewer'),
    query: reconciliationQuery,
    answer,
    problems,
    handle: ({ organizationId, query }) => service.reconcile({ organizationId }, query),
  }),
  defineRoute({
    method: 'get',
    path: '/devices/{deviceId}/telemetry/reconciliation',
    tag,
    summary: 'Reconciles what was received from a device with what was stored.',
    description,
    access: scoped('device', 'deviceId', 'viewer'),
    query: reconciliationQuery,
    answer,
    problems,
    handle: ({ params: { deviceId }, query }) => service.reconcile({ deviceId }, query),
  }),
  defineRoute({
    method: 'get',
    path: '/organizations/{organizationId}/devices-over-budget',
    tag,
    summary: 'Lists the devices that said more than their budget allows within the last 7 days, the worst first.',
    access: scoped('organization', 'organizationId', 'viewer'),
    answer: { status: 200, body: overBudgetDevices, description: 'At most 200 devices.' },
    handle: async ({ organizationId }) => ({ items: await overBudget.list(organizationId) }),
  }),
]
