import { DomainError, unaryHandler } from '@ares/chassis'
import { type AccessServiceServer, ExplainAction, type ExplainRequest } from '@ares/proto/directory/v1/access'
import type { ConnectRules } from '../decision/authn'
import type { DirectoryReplica } from '../replica/directory-replica'
import { explain } from './explain'

/** AccessService over gRPC, for api. */
export const explainRpc = (
  replica: Pick<DirectoryReplica, 'knowledge'>,
  rules: Pick<ConnectRules, 'refuseWhenOlderThanMs'>,
): AccessServiceServer => ({
  explain: unaryHandler(async (request) => {
    requireWhole(request)
    const knowledge = replica.knowledge()
    if (!knowledge) {
      throw new DomainError('precondition', 'no_directory', 'There is no directory yet: everybody is refused.')
    }
    return explain(request, knowledge, Date.now(), rules)
  }),
})

function requireWhole({ who, action, topic, qos }: ExplainRequest): void {
  const actions = [
    ExplainAction.EXPLAIN_ACTION_CONNECT,
    ExplainAction.EXPLAIN_ACTION_PUBLISH,
    ExplainAction.EXPLAIN_ACTION_SUBSCRIBE,
  ]
  if (!who || !actions.includes(action) || qos > 2) {
    throw new DomainError('invalid', 'invalid_question', 'A question needs who, what, and a QoS of 0 to 2.')
  }
  if (action !== ExplainAction.EXPLAIN_ACTION_CONNECT && topic === '') {
    throw new DomainError('invalid', 'invalid_question', 'To publish or subscribe needs a topic.')
  }
}
