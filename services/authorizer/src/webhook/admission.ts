import type { Logger } from '@ares/chassis'
import { type ConnectDecision, type ConnectRequest, type ConnectRules, decideConnect } from '../decision/authn'
import { type ActionRequest, decideAction } from '../decision/authz'
import { type Decision, whoOf } from '../decision/decision'
import type { AdmissionJournal } from '../journal/admission-journal'
import type { DirectoryReplica } from '../replica/directory-replica'
import type { AdmissionMetrics } from './admission-metrics'
import { readAction, readConnect } from './bodies'
import type { RefusalLog } from './refusal-log'
import type { RepeatedRefusals } from './repeated-refusals'
import { DENY } from './webhook-server'

const ALLOW = '{"result":"allow"}'

/** The two hooks: from the bytes of a question to the JSON of its answer, with the explanation in journal, log and metrics. */
export class Admission {
  /** Asked once: winston goes through its transports each time. */
  private readonly debug: boolean

  constructor(
    private readonly parts: {
      readonly replica: Pick<DirectoryReplica, 'knowledge'>
      readonly rules: ConnectRules
      readonly metrics: AdmissionMetrics
      readonly logger: Logger
      readonly refusals: RefusalLog
      readonly journal: Pick<AdmissionJournal, 'note'>
      /** Absent: every question is decided anew. */
      readonly repeated?: RepeatedRefusals
      /** Wall clock, milliseconds: certificates and tokens end by it. */
      readonly now?: () => number
    },
  ) {
    this.debug = parts.logger.isDebugEnabled()
  }

  /** POST /mqtt/authn */
  readonly connect = (body: Buffer): string => {
    const { metrics, logger, refusals, journal } = this.parts
    const startedMs = performance.now()
    const request = readConnect(body)
    const decision = request ? this.decide(request) : MALFORMED
    metrics.decided('authn', decision, startedMs)
    const allowed = decision.result === 'allow'
    const asked = { clientId: short(request?.clientid), peer: short(request?.peerhost), zone: short(request?.zone) }
    journal.note('connect', decision, asked)
    if (!allowed) {
      refusals.refused('connection refused', decision.reason, () => ({ ...explanation(decision), ...asked }))
      return DENY
    }
    // A line for each would cost more than all the rest: the journal has it, and metrics count it.
    if (this.debug) {
      logger.debug('connection allowed', { ...explanation(decision), ...asked, expireAt: decision.expireAt })
    }
    const acl = decision.acl === undefined ? '' : `,"acl":${decision.acl}`
    return `{"result":"allow","is_superuser":false,"expire_at":${decision.expireAt}${acl}}`
  }

  private decide(request: ConnectRequest): ConnectDecision {
    const { replica, rules, repeated, now = Date.now } = this.parts
    const nowMs = now()
    const knowledge = replica.knowledge()
    const remembered = repeated?.recall(request, knowledge?.version, nowMs)
    if (remembered) return remembered
    const decision = decideConnect(request, knowledge, nowMs, rules)
    repeated?.note(request, decision, nowMs)
    return decision
  }

  /** POST /mqtt/authz */
  readonly action = (body: Buffer): string => {
    const { replica, metrics, logger, refusals, journal } = this.parts
    const startedMs = performance.now()
    const request = readAction(body)
    const decision: Decision = request ? decideAction(request, replica.knowledge()) : MALFORMED
    metrics.decided('authz', decision, startedMs)
    if (decision.result === 'deny') {
      if (request) journal.note(request.action, decision, shownAction(request))
      refusals.refused('action refused', decision.reason, () => ({
        ...explanation(decision),
        ...(request ? shownAction(request) : {}),
      }))
      return DENY
    }
    if (request && this.debug) {
      logger.debug('action allowed', { ...explanation(decision), ...shownAction(request) })
    }
    return ALLOW
  }
}

const MALFORMED: ConnectDecision = { result: 'deny', reason: 'malformed' }

function explanation(decision: Decision): Record<string, unknown> {
  const { rule, serial, directoryVersion, directoryAgeMs } = decision
  return {
    who: whoOf(decision),
    ...(serial === undefined ? {} : { serial }),
    ...(rule === undefined ? {} : { rule }),
    ...(directoryVersion === undefined ? {} : { directoryVersion: String(directoryVersion), directoryAgeMs }),
  }
}

const shownAction = (request: ActionRequest) => ({
  clientId: short(request.clientid),
  peer: short(request.peerhost),
  action: request.action,
  topic: short(request.topic),
  qos: request.qos,
  retain: request.retain,
})

/** What a client chose may be 64 KiB long. */
const short = (text: string | undefined): string | undefined =>
  text !== undefined && text.length > 200 ? `${text.slice(0, 200)}…` : text
