import type { Logger } from '@ares/chassis'
import { type ConnectDecision, type ConnectRules, decideConnect } from '../decision/authn'
import { type ActionRequest, decideAction } from '../decision/authz'
import type { Decision, Reason } from '../decision/decision'
import type { DirectoryReplica } from '../replica/directory-replica'
import type { AdmissionMetrics } from './admission-metrics'
import { readAction, readConnect } from './bodies'
import type { RefusalLog } from './refusal-log'
import { DENY } from './webhook-server'

const ALLOW = '{"result":"allow"}'

/** The two hooks: from the bytes of a question to the JSON of its answer, with the explanation in log and metrics. */
export class Admission {
  constructor(
    private readonly parts: {
      readonly replica: Pick<DirectoryReplica, 'knowledge'>
      readonly rules: ConnectRules
      readonly metrics: AdmissionMetrics
      readonly logger: Logger
      readonly refusals: RefusalLog
      /** Wall clock, milliseconds: certificates and tokens end by it. */
      readonly now?: () => number
    },
  ) {}

  /** POST /mqtt/authn */
  readonly connect = (body: Buffer): string => {
    const { replica, rules, metrics, logger, refusals, now = Date.now } = this.parts
    const startedMs = performance.now()
    const request = readConnect(body)
    const decision: ConnectDecision = request ? decideConnect(request, replica.knowledge(), now(), rules) : MALFORMED
    metrics.decided('authn', decision, performance.now() - startedMs)
    const fields = { ...explanation(decision), clientId: short(request?.clientid), peer: short(request?.peerhost) }
    if (decision.result === 'deny') {
      refusals.refused('connection refused', decision.reason, { ...fields, zone: short(request?.zone) })
      return DENY
    }
    logger.info('connection allowed', { ...fields, zone: request?.zone, expireAt: decision.expireAt })
    return JSON.stringify({
      result: 'allow',
      is_superuser: false,
      expire_at: decision.expireAt,
      ...(decision.acl ? { acl: decision.acl } : {}),
    })
  }

  /** POST /mqtt/authz */
  readonly action = (body: Buffer): string => {
    const { replica, metrics, logger, refusals } = this.parts
    const startedMs = performance.now()
    const request = readAction(body)
    const decision: Decision = request ? decideAction(request, replica.knowledge()) : MALFORMED
    metrics.decided('authz', decision, performance.now() - startedMs)
    if (decision.result === 'deny') {
      refusals.refused('action refused', decision.reason, { ...explanation(decision), ...shownAction(request) })
      return DENY
    }
    if (logger.isDebugEnabled()) {
      logger.debug('action allowed', { ...explanation(decision), ...shownAction(request) })
    }
    return ALLOW
  }
}

const MALFORMED = { result: 'deny', reason: 'malformed' as Reason } as const

function explanation({ who, rule, directoryVersion, directoryAgeMs }: Decision): Record<string, unknown> {
  return {
    who,
    ...(rule === undefined ? {} : { rule }),
    ...(directoryVersion === undefined ? {} : { directoryVersion: String(directoryVersion), directoryAgeMs }),
  }
}

const shownAction = (request: ActionRequest | undefined): Record<string, unknown> =>
  request
    ? {
        clientId: short(request.clientid),
        peer: short(request.peerhost),
        action: request.action,
        topic: short(request.topic),
        qos: request.qos,
        retain: request.retain,
      }
    : {}

/** What a client chose may be 64 KiB long. */
const short = (text: string | undefined): string | undefined =>
  text !== undefined && text.length > 200 ? `${text.slice(0, 200)}…` : text
