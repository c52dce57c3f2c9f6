import { defineRoute, type Route } from '../../http/route'
import { explainBody, explanation } from './access.schema'
import type { AccessService } from './access.service'

export const accessRoutes = (access: Pick<AccessService, 'explain'>): Route[] => [
  defineRoute({
    method: 'post',
    path: '/access/explain',
    tag: 'access',
    summary: 'Says whether somebody may do something at the broker, by which rule, and from what that was decided.',
    description:
      'Answered by an authorizer, from what it knows at this moment and by the code that answers the broker. Members may ask about the devices of their organizations, owners about the people in them, everybody about oneself.',
    access: 'signed-in',
    body: explainBody,
    answer: { status: 200, body: explanation, description: 'The decision and what it was made from.' },
    problems: {
      device_not_found: 'There is no such device, or it is a stranger’s.',
      certificate_not_found: 'There is no certificate with this serial number, or it is a stranger’s.',
      user_not_found: 'There is no such person in an organization that you own.',
      topic_missing: 'To publish or subscribe needs a topic.',
      authorizer_unavailable: 'No authorizer answered.',
      no_directory: 'The authorizers have only begun, and refuse everybody yet.',
    },
    handle: ({ actor, body }) => access.explain(actor, body),
  }),
]
