import type { Role } from '@ares/proto/directory/v1/directory'
import { type Action, type ClassName, type Permission, POLICY, ruleName } from '../policy/policy'
import { roleReaches } from '../replica/directory'
import type { Knowledge } from '../replica/directory-replica'
import { contains, DEVICE_ID, type Levels, levelsOf, publishedLevels, subscribedLevels } from '../topic-filter'
import { type Decision, decided, type Findings, madeFrom, type Reason } from './decision'
import { identityOf, isServiceClientId, isUserClientId } from './identities'

/** What EMQX asks for an action that the `acl` of the connection does not answer. */
export interface ActionRequest {
  readonly clientid: string
  readonly username: string
  readonly peerhost: string
  readonly cert_common_name: string
  readonly topic: string
  readonly action: 'publish' | 'subscribe'
  readonly qos: '0' | '1' | '2'
  readonly retain: 'true' | 'false'
}

/** Whether a connected client may publish on a topic or subscribe to a filter. Pure, like decideConnect, and by the same
 *  policy: a test holds that it agrees with the `acl` as EMQX reads it. */
export function decideAction(request: ActionRequest, knowledge: Knowledge | undefined): Decision {
  return knowledge ? madeFrom(knowledge, decide(request, knowledge)) : deny('no_directory')
}

function decide(request: ActionRequest, knowledge: Knowledge): Decision {
  const wanted = request.action === 'publish' ? publishedLevels(request.topic) : subscribedLevels(request.topic)
  // Only a person comes without a certificate: the other two listeners demand one, and authn demands it again.
  if (request.cert_common_name === '') return userActs(request, wanted, knowledge)

  const identity = identityOf(request.cert_common_name)
  if (identity.className === 'none') return deny(identity.reason)
  if (identity.className !== 'device') {
    const found: Findings = { className: identity.className, subjectId: identity.className }
    if (!isServiceClientId(identity.className, request.clientid)) return deny('wrong_client_id', found)
    return byRules(identity.className, '', request, wanted, found)
  }
  const found: Findings = { className: 'device', subjectId: identity.deviceId }
  if (request.clientid !== identity.deviceId) return deny('wrong_client_id', found)
  const device = knowledge.directory.device(identity.deviceId)
  if (!device) return deny('device_unknown', found)
  if (!device.active) return deny('device_disabled', found)
  return byRules('device', identity.deviceId, request, wanted, found)
}

function userActs(request: ActionRequest, wanted: Levels | undefined, { directory }: Knowledge): Decision {
  const user = directory.userByEmail(request.username)
  if (!user) return deny('user_unknown')
  const found: Findings = { className: 'user', subjectId: user.id }
  if (!user.active) return deny('user_disabled', found)
  if (!isUserClientId(user.email, request.clientid)) return deny('wrong_client_id', found)
  if (!wanted) return deny('topic_malformed', found)
  // A wildcard here would be everybody's devices, so it must be the id of one, and of an own organization.
  const device = directory.device(wanted[1] ?? '')
  const role = device && user.roles.get(device.organizationId)
  if (role === undefined) return deny('not_a_member', found)
  return byRules('user', wanted[1] ?? '', request, wanted, found, role)
}

function byRules(
  className: ClassName,
  deviceId: string,
  request: ActionRequest,
  wanted: Levels | undefined,
  found: Findings,
  role?: Role,
): Decision {
  if (!wanted) return deny('topic_malformed', found)
  const rule = RULES[className][request.action].find((each) => covers(each, wanted, deviceId))
  if (!rule) return deny('no_rule', found)
  const { permission, name } = rule
  const shown: Findings = { className: found.className, subjectId: found.subjectId, rule: name }
  if (permission.role && !roleReaches(role, permission.role)) return deny('role_too_low', shown)
  if (!permission.qos.some((qos) => String(qos) === request.qos)) return deny('qos_too_high', shown)
  if (permission.retain !== undefined && request.retain !== String(permission.retain)) {
    return deny('retain_not_as_ruled', shown)
  }
  return decided('allow', 'allowed', shown)
}

interface Rule {
  readonly permission: Permission
  /** The template, split once. */
  readonly levels: Levels
  readonly name: string
}

function covers({ permission, levels }: Rule, wanted: Levels, deviceId: string): boolean {
  if (permission.match === 'within' || permission.action === 'publish') return contains(levels, wanted, deviceId)
  return (
    levels.length === wanted.length &&
    levels.every((level, i) => (level === DEVICE_ID ? deviceId : level) === wanted[i])
  )
}

const rulesOf = (className: ClassName, action: Action): readonly Rule[] =>
  POLICY[className].permissions
    .filter((permission) => permission.action === action)
    .map((permission) => ({
      permission,
      levels: levelsOf(permission.topic) ?? [],
      name: ruleName(className, permission),
    }))

/** The policy as it is looked through, made once. */
const RULES = Object.fromEntries(
  (Object.keys(POLICY) as ClassName[]).map((className) => [
    className,
    { publish: rulesOf(className, 'publish'), subscribe: rulesOf(className, 'subscribe') },
  ]),
) as Record<ClassName, Record<Action, readonly Rule[]>>

const deny = (reason: Reason, found?: Findings): Decision => decided('deny', reason, found)
