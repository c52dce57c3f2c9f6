import { deviceCommonName } from '@ares/proto'
import {
  ExplainAction,
  type ExplainDevice,
  type ExplainRequest,
  type ExplainResponse,
} from '@ares/proto/directory/v1/access'
import { type Device, DeviceState, type User } from '@ares/proto/directory/v1/directory'
import {
  type ConnectDecision,
  type ConnectRules,
  certificateConnects,
  decideFrom,
  personConnects,
} from '../decision/authn'
import { decideAction } from '../decision/authz'
import type { Decision } from '../decision/decision'
import { type Directory, hexOf } from '../replica/directory'
import type { Knowledge } from '../replica/directory-replica'
import { subscribedLevels } from '../topic-filter'

/**
 * Answers a question as the broker would be answered, by the same functions, and says from what.
 *
 * Nobody connects, so some things are taken to be so: the certificate is signed by the CA and is shown to the listener of
 * its class, the token is good and the person's own, the client id is as it must be. Who could not connect may do nothing.
 */
export function explain(
  request: ExplainRequest,
  knowledge: Knowledge,
  nowMs: number,
  rules: Pick<ConnectRules, 'refuseWhenOlderThanMs'>,
): ExplainResponse {
  const connecting = request.action === ExplainAction.EXPLAIN_ACTION_CONNECT
  // What is connected stays when the directory grows old: only new connections are refused then.
  const connection = decideFrom(knowledge, connecting ? rules : {}, (known) => connects(request, known, nowMs))
  const decision = connecting || connection.result === 'deny' ? connection : acts(request, knowledge)
  return { ...answerOf(decision, knowledge), ...factsFor(request, knowledge.directory) }
}

function connects({ who }: ExplainRequest, knowledge: Knowledge, nowMs: number): ConnectDecision {
  if (who?.$case === 'device') {
    const { deviceId } = who.value
    const shown = certificateOf(who.value, knowledge.directory)
    if (!shown) return { result: 'deny', reason: 'certificate_missing', className: 'device', subjectId: deviceId }
    const asked = { clientid: deviceId, zone: 'devices' }
    return certificateConnects(deviceCommonName(deviceId), shown, asked, knowledge, nowMs)
  }
  const email = who?.value ?? ''
  const userId = knowledge.directory.userByEmail(email)?.id ?? ''
  const token = { userId, expiresAtMs: Number.POSITIVE_INFINITY }
  return personConnects(token, { clientid: email, username: email }, knowledge)
}

function acts({ who, action, topic, qos, retain }: ExplainRequest, knowledge: Knowledge): Decision {
  const [name, commonName] =
    who?.$case === 'device' ? [who.value.deviceId, deviceCommonName(who.value.deviceId)] : [who?.value ?? '', '']
  return decideAction(
    {
      clientid: name,
      username: name,
      peerhost: '',
      cert_common_name: commonName,
      topic,
      action: action === ExplainAction.EXPLAIN_ACTION_PUBLISH ? 'publish' : 'subscribe',
      qos: qos === 0 ? '0' : qos === 1 ? '1' : '2',
      retain: retain ? 'true' : 'false',
    },
    knowledge,
  )
}

function certificateOf({ deviceId, certificate }: ExplainDevice, directory: Directory) {
  if (certificate) {
    return {
      serial: hexOf(certificate.serial),
      notBeforeMs: certificate.notBefore?.getTime() ?? Number.NEGATIVE_INFINITY,
      notAfterMs: certificate.notAfter?.getTime() ?? Number.NEGATIVE_INFINITY,
    }
  }
  const [serial] = directory.device(deviceId)?.serials() ?? []
  return serial === undefined
    ? undefined
    : { serial, notBeforeMs: Number.NEGATIVE_INFINITY, notAfterMs: Number.POSITIVE_INFINITY }
}

const answerOf = (decision: Decision, { version, ageMs }: Knowledge) => ({
  allowed: decision.result === 'allow',
  reason: decision.reason,
  rule: decision.rule ?? '',
  className: decision.className ?? '',
  subjectId: decision.subjectId ?? '',
  directoryVersion: version,
  directoryAgeMs: BigInt(Math.max(0, Math.round(ageMs))),
})

function factsFor({ who, topic }: ExplainRequest, directory: Directory) {
  const device = who?.$case === 'device' ? who.value : undefined
  const topicDeviceId = subscribedLevels(topic)?.[1]
  return {
    device: device && deviceFact(device.deviceId, directory),
    certificateRevoked: device?.certificate ? directory.isRevoked(hexOf(device.certificate.serial)) : false,
    user: who?.$case === 'email' ? userFact(who.value, directory) : undefined,
    topicDevice: topicDeviceId === undefined ? undefined : deviceFact(topicDeviceId, directory),
  }
}

function deviceFact(id: string, directory: Directory): Device | undefined {
  const device = directory.device(id)
  return (
    device && {
      id,
      organizationId: device.organizationId,
      state: device.active ? DeviceState.DEVICE_STATE_ACTIVE : DeviceState.DEVICE_STATE_DISABLED,
      certificateSerials: device.serials().map((serial) => Buffer.from(serial, 'hex')),
    }
  )
}

function userFact(email: string, directory: Directory): User | undefined {
  const user = directory.userByEmail(email)
  return (
    user && {
      id: user.id,
      email: user.email,
      active: user.active,
      memberships: [...user.roles].map(([organizationId, role]) => ({ organizationId, role })),
    }
  )
}
