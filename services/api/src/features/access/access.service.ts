import { DomainError } from '@ares/chassis'
import { TOPIC_ROOT } from '@ares/proto'
import { ExplainAction, type ExplainRequest, type ExplainResponse } from '@ares/proto/directory/v1/access'
import { type Device, DeviceState, Role } from '@ares/proto/directory/v1/directory'
import { type AccessControl, notFound } from '../../http/access'
import { scoped, type UserActor } from '../../http/route'
import { serialBytes } from '../directory/directory.entries'
import { type ExplainBody, type Explanation, whoOf } from './access.schema'
import type { AccessStore, CertificateFact } from './access.store'
import type { Explanations } from './explanations'

/**
 * Says why somebody may do something at the broker, or not. The decision is the authorizer's; this room says who may ask:
 * a member about the devices of the organization, an owner about its people, everybody about oneself.
 */
export class AccessService {
  constructor(
    private readonly store: Pick<AccessStore, 'certificate' | 'newestCertificate' | 'mayAskAbout' | 'organizationsOf'>,
    private readonly access: Pick<AccessControl, 'signedIn' | 'scoped'>,
    private readonly explanations: Explanations,
  ) {}

  /** @throws DomainError device_not_found, certificate_not_found, user_not_found, topic_missing, and those of Explanations */
  async explain(actor: UserActor, body: ExplainBody): Promise<Explanation> {
    await this.access.signedIn(actor.id)
    if (body.action !== 'connect' && body.topic === undefined) {
      throw new DomainError('invalid', 'topic_missing', `To ask whether one may ${body.action} needs a topic.`)
    }
    const asked = whoOf(body.who)
    const certificate =
      asked?.kind === 'certificate'
        ? await this.store.certificate(asked.name)
        : asked?.kind === 'device'
          ? await this.store.newestCertificate(asked.name)
          : undefined
    const deviceId = asked?.kind === 'device' ? asked.name : certificate?.deviceId
    if (asked?.kind === 'user') await this.requireAboutPerson(actor, asked.name, body)
    else await this.requireMember(actor, deviceId, asked?.kind ?? 'device')
    const answer = await this.explanations.explain(questionOf(body, deviceId, certificate))
    return this.shown(actor, body, certificate, answer)
  }

  /** A stranger must not learn that there is such a thing. */
  private async requireMember(actor: UserActor, deviceId: string | undefined, asked: string): Promise<void> {
    if (deviceId === undefined) throw notFound(asked)
    try {
      await this.access.scoped(actor.id, scoped('device', 'deviceId', 'viewer'), deviceId)
    } catch (error) {
      throw error instanceof DomainError && error.kind === 'not_found' ? notFound(asked) : error
    }
  }

  /** A person's roles elsewhere are nobody's business, so a topic must be of a device that the asker may see. */
  private async requireAboutPerson(actor: UserActor, email: string, { topic }: ExplainBody): Promise<void> {
    if (!(await this.store.mayAskAbout(actor.id, email))) throw notFound('user')
    const deviceId = deviceIn(topic)
    if (deviceId) await this.access.scoped(actor.id, scoped('device', 'deviceId', 'viewer'), deviceId)
  }

  private async shown(
    actor: UserActor,
    { who }: ExplainBody,
    certificate: CertificateFact | undefined,
    answer: ExplainResponse,
  ): Promise<Explanation> {
    const own = await this.store.organizationsOf(actor.id)
    const device = (known: Device | undefined) => (known && own.has(known.organizationId) ? shownDevice(known) : null)
    const { user } = answer
    return {
      decision: answer.allowed ? 'allow' : 'deny',
      reason: answer.reason,
      rule: answer.rule || null,
      subject: answer.className ? { className: answer.className, id: answer.subjectId } : null,
      assumed: whoOf(who)?.kind === 'user' ? ASSUMED_OF_PEOPLE : ASSUMED_OF_DEVICES,
      known: {
        device: device(answer.device),
        certificate: certificate
          ? {
              serial: certificate.serial,
              revoked: answer.certificateRevoked,
              notBefore: certificate.notBefore,
              expiresAt: certificate.notAfter,
            }
          : null,
        user: user
          ? {
              id: user.id,
              email: user.email,
              active: user.active,
              memberships: user.memberships
                .filter(({ organizationId }) => own.has(organizationId))
                .map(({ organizationId, role }) => ({ organizationId, role: ROLES[role] ?? 'none' })),
            }
          : null,
        topicDevice: device(answer.topicDevice),
        directoryVersion: String(answer.directoryVersion),
        directoryAgeMs: Number(answer.directoryAgeMs),
      },
    }
  }
}

const ASSUMED_OF_DEVICES = [
  'the certificate is signed by the CA and shown to the listener for devices',
  'the client id is the id of the device',
]
const ASSUMED_OF_PEOPLE = ['the access token is good and the person’s own', 'the client id is the e-mail']

function questionOf(
  { who, action, topic, qos, retain }: ExplainBody,
  deviceId: string | undefined,
  certificate: CertificateFact | undefined,
): ExplainRequest {
  return {
    who:
      deviceId === undefined
        ? { $case: 'email', value: who }
        : {
            $case: 'device',
            value: {
              deviceId,
              certificate: certificate && { ...certificate, serial: serialBytes(certificate.serial) },
            },
          },
    action: ACTIONS[action],
    topic: action === 'connect' ? '' : (topic ?? ''),
    qos,
    retain: action === 'publish' && retain,
  }
}

/** The device that a topic or filter speaks of, with or without `$share/…` and the like before it. */
function deviceIn(topic: string | undefined): string | undefined {
  const levels = topic?.split('/') ?? []
  const id = levels[levels.indexOf(TOPIC_ROOT) + 1] ?? ''
  return levels.includes(TOPIC_ROOT) && UUID.test(id) ? id : undefined
}

const shownDevice = ({ id, organizationId, state, certificateSerials }: Device) => ({
  id,
  organizationId,
  state: state === DeviceState.DEVICE_STATE_ACTIVE ? ('active' as const) : ('disabled' as const),
  certificateSerials: certificateSerials.map(
    (serial) => Buffer.from(serial).toString('hex').match(/../g)?.join(':') ?? '',
  ),
})

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

const ACTIONS = {
  connect: ExplainAction.EXPLAIN_ACTION_CONNECT,
  publish: ExplainAction.EXPLAIN_ACTION_PUBLISH,
  subscribe: ExplainAction.EXPLAIN_ACTION_SUBSCRIBE,
} as const

const ROLES: Readonly<Partial<Record<Role, string>>> = {
  [Role.ROLE_VIEWER]: 'viewer',
  [Role.ROLE_OPERATOR]: 'operator',
  [Role.ROLE_OWNER]: 'owner',
}
