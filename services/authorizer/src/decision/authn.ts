import { aclOf } from '../policy/acl'
import { POLICY, type Zone } from '../policy/policy'
import type { Knowledge } from '../replica/directory-replica'
import { verifyAccessToken } from './access-token'
import type { CertificateReader, PresentedCertificate } from './certificate'
import { type Decision, decided, type Findings, madeFrom, type Reason } from './decision'
import { identityOf, isServiceClientId, isUserClientId } from './identities'

/** What EMQX asks at CONNECT. It sends every value as a string, and "" for what the client did not give. */
export interface ConnectRequest {
  readonly clientid: string
  readonly username: string
  readonly password: string
  readonly peerhost: string
  readonly cert_common_name: string
  /** Base64 of the DER. */
  readonly cert_pem: string
  readonly zone: string
}

export interface ConnectDecision extends Decision {
  /** Devices and services: everything the connection may do, the JSON text of a list of AclRule. People have none: each
   *  action is asked for. */
  readonly acl?: string
  /** When the broker ends the connection, Unix seconds: the end of the certificate or of the token. */
  readonly expireAt?: number
}

export interface ConnectRules {
  readonly certificates: Pick<CertificateReader, 'read'>
  /** New connections are refused when the directory is older; undefined: never. */
  readonly refuseWhenOlderThanMs?: number
}

/** Whether a client may connect, as what, for how long and for which actions. Pure: the same question at the same time
 *  with the same knowledge has the same answer. */
export function decideConnect(
  request: ConnectRequest,
  knowledge: Knowledge | undefined,
  nowMs: number,
  rules: ConnectRules,
): ConnectDecision {
  return decideFrom(knowledge, rules, (known) => {
    switch (request.zone as Zone) {
      case 'devices':
      case 'services':
        return withCertificate(request, known, nowMs, rules)
      case 'users':
        return withToken(request, known, nowMs)
      default:
        return deny('unknown_zone')
    }
  })
}

/** Lets nobody in when too little is known, and puts to each decision from what it was made. */
export function decideFrom(
  knowledge: Knowledge | undefined,
  { refuseWhenOlderThanMs = Number.POSITIVE_INFINITY }: Pick<ConnectRules, 'refuseWhenOlderThanMs'>,
  decide: (knowledge: Knowledge) => ConnectDecision,
): ConnectDecision {
  if (!knowledge) return deny('no_directory')
  return madeFrom(knowledge, knowledge.ageMs > refuseWhenOlderThanMs ? deny('directory_too_old') : decide(knowledge))
}

function withCertificate(
  request: ConnectRequest,
  knowledge: Knowledge,
  nowMs: number,
  { certificates }: ConnectRules,
): ConnectDecision {
  if (request.cert_pem === '') return deny('certificate_missing')
  const certificate = certificates.read(request.cert_pem)
  if (!certificate) return deny('certificate_unreadable')
  const { commonName } = certificate
  if (commonName === undefined) return deny('nobody')
  if (commonName !== request.cert_common_name) return deny('common_name_differs')
  if (!certificate.ours) return deny('certificate_foreign')
  return certificateConnects(commonName, certificate, request, knowledge, nowMs)
}

/** Who shows a certificate of ours. */
export function certificateConnects(
  commonName: string,
  certificate: Pick<PresentedCertificate, 'serial' | 'notBeforeMs' | 'notAfterMs'>,
  request: Pick<ConnectRequest, 'clientid' | 'zone'>,
  knowledge: Knowledge,
  nowMs: number,
): ConnectDecision {
  const { serial } = certificate
  const identity = identityOf(commonName)
  if (identity.className === 'none') return deny(identity.reason, { serial })
  const { className } = identity
  const found: Findings = {
    className,
    subjectId: identity.className === 'device' ? identity.deviceId : identity.className,
    serial,
  }
  if (!(certificate.notAfterMs > nowMs)) return deny('certificate_expired', found)
  if (!(certificate.notBeforeMs <= nowMs + CLOCK_SKEW_MS)) return deny('certificate_not_yet_valid', found)
  if (POLICY[className].zone !== request.zone) return deny('wrong_zone', found)
  if (identity.className === 'device') return deviceConnects(identity.deviceId, certificate, request, knowledge, found)
  // The directory holds no certificates of services: who has one got it from Vault today, and it ends within a day.
  if (!isServiceClientId(identity.className, request.clientid)) return deny('wrong_client_id', found)
  return admit(certificate.notAfterMs, found, aclOf(identity.className))
}

function deviceConnects(
  deviceId: string,
  certificate: Pick<PresentedCertificate, 'serial' | 'notAfterMs'>,
  request: Pick<ConnectRequest, 'clientid'>,
  { directory }: Knowledge,
  found: Findings,
): ConnectDecision {
  if (request.clientid !== deviceId) return deny('wrong_client_id', found)
  const device = directory.device(deviceId)
  if (!device) return deny('device_unknown', found)
  if (directory.isRevoked(certificate.serial)) return deny('certificate_revoked', found)
  if (!device.active) return deny('device_disabled', found)
  if (!device.hasSerial(certificate.serial)) return deny('certificate_unknown', found)
  return admit(certificate.notAfterMs, found, aclOf('device', deviceId))
}

function withToken(request: ConnectRequest, knowledge: Knowledge, nowMs: number): ConnectDecision {
  if (request.cert_common_name !== '' || request.cert_pem !== '') return deny('certificate_not_for_people')
  const token = verifyAccessToken(request.password, knowledge.directory, nowMs)
  return token.ok ? personConnects(token, request, knowledge) : deny(token.reason)
}

/** Who has a good access token. */
export function personConnects(
  token: { readonly userId: string; readonly expiresAtMs: number },
  request: Pick<ConnectRequest, 'clientid' | 'username'>,
  { directory }: Knowledge,
): ConnectDecision {
  const user = directory.userByEmail(request.username)
  if (!user) return deny('user_unknown')
  const found: Findings = { className: 'user', subjectId: user.id }
  if (user.id !== token.userId) return deny('token_of_another', found)
  if (!user.active) return deny('user_disabled', found)
  if (!isUserClientId(user.email, request.clientid)) return deny('wrong_client_id', found)
  return admit(token.expiresAtMs, found)
}

const CLOCK_SKEW_MS = 60_000

const deny = (reason: Reason, found?: Findings): ConnectDecision => decided('deny', reason, found)

const admit = (untilMs: number, found: Findings, acl?: string): ConnectDecision => ({
  result: 'allow',
  reason: 'allowed',
  className: found.className,
  subjectId: found.subjectId,
  serial: found.serial,
  rule: undefined,
  directoryVersion: undefined,
  directoryAgeMs: undefined,
  expireAt: Math.floor(untilMs / 1_000),
  acl,
})
