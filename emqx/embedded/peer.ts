import type { ZoneConf } from './conf/broker-conf'
import type { Acl, Action } from './hooks/acl'

/** Where a connection came in, known before its CONNECT. */
export interface Origin {
  /** `ssl:devices` */
  readonly listener: string
  readonly zone: ZoneConf
  readonly enableAuthn: boolean
  readonly host: string
  readonly port: number
  /** CN of a verified client certificate; several are joined by a comma, none is empty */
  readonly commonName: string
  /** The verified client certificate as base64 DER, without armour; none is empty */
  readonly certificate: string
}

/** A connection after its CONNECT: who it is, and what has been decided about it. */
export class Peer {
  readonly listener: string
  readonly zone: ZoneConf
  readonly enableAuthn: boolean
  readonly host: string
  readonly port: number
  readonly commonName: string
  readonly certificate: string
  readonly connectedAt = new Date()
  username: string | undefined
  superuser = false
  acl: Acl | undefined
  /** Answers of the HTTP source, oldest first. */
  readonly verdicts = new Map<string, { readonly allowed: boolean; readonly askedAt: number }>()
  waitingDecisions = 0
  lastDecision: Promise<void> = Promise.resolve()
  expiry: NodeJS.Timeout | undefined

  private lastPublish: (Action & { readonly allowed: boolean | undefined }) | undefined

  constructor(
    origin: Origin,
    readonly clientId: string,
    readonly keepaliveSeconds: number,
    readonly cleanStart: boolean,
  ) {
    this.listener = origin.listener
    this.zone = origin.zone
    this.enableAuthn = origin.enableAuthn
    this.host = origin.host
    this.port = origin.port
    this.commonName = origin.commonName
    this.certificate = origin.certificate
  }

  /** By the rules of the authn answer; a device mostly publishes to one topic, so its last decision is kept. */
  decideByRules(action: Action): boolean | undefined {
    if (!this.acl) return undefined
    const last = this.lastPublish
    if (last && action.kind === 'publish' && last.topic === action.topic) {
      if (last.qos === action.qos && last.retain === action.retain) return last.allowed
    }
    const verdict = this.acl.decide(action)
    const allowed = verdict === undefined ? undefined : verdict === 'allow'
    if (action.kind === 'publish') this.lastPublish = { ...action, allowed }
    return allowed
  }
}
