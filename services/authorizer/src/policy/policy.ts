/**
 * Who may do what on MQTT: the one place where it is written. From it come the `acl` of an authn answer (acl.ts), the
 * answers of /mqtt/authz (../decision/authz.ts), the table in docs/access.md (access-page.ts) and what the tests hold.
 */

export type Action = 'publish' | 'subscribe'
export type Qos = 0 | 1 | 2

/** A listener of the broker, by its zone in emqx.conf: each class comes in by its own door. */
export type Zone = 'devices' | 'services' | 'users'

export interface Permission {
  readonly action: Action
  /** Topic filter. `{deviceId}` is the device itself for a device, a device of an own organization for a person. */
  readonly topic: string
  /** `within`: any filter whose every topic the template matches. `exact`: this filter and no other, so that a wildcard
   *  over all devices cannot be narrowed or widened by who holds it. */
  readonly match: 'within' | 'exact'
  readonly qos: readonly Qos[]
  /** Publications only. Undefined: with or without. */
  readonly retain?: boolean
  /** People only: the least role that has it. */
  readonly role?: 'viewer' | 'operator'
  readonly why: string
}

export interface AccessClass {
  readonly title: string
  readonly zone: Zone
  /** How it shows who it is. */
  readonly identity: string
  readonly clientId: string
  readonly permissions: readonly Permission[]
}

export type ClassName = 'device' | 'listener' | 'server' | 'user'

/** QoS 2 costs four packets and gives nothing: a report is idempotent, a command has an id. */
const AT_MOST_1 = [0, 1] as const

const publish = (topic: string, why: string, limits: Partial<Permission> = {}): Permission => ({
  action: 'publish',
  topic,
  match: 'within',
  qos: AT_MOST_1,
  retain: false,
  why,
  ...limits,
})

const subscribe = (topic: string, why: string, limits: Partial<Permission> = {}): Permission => ({
  action: 'subscribe',
  topic,
  match: 'within',
  qos: AT_MOST_1,
  why,
  ...limits,
})

const exact = { match: 'exact' } as const
const viewer = { role: 'viewer' } as const
const operator = { role: 'operator' } as const

export const POLICY: Readonly<Record<ClassName, AccessClass>> = {
  device: {
    title: 'Device',
    zone: 'devices',
    identity: 'certificate of the device, CN `{deviceId}.device.ares4.internal`',
    clientId: '`{deviceId}`',
    permissions: [
      // First, because EMQX reads the list from the top at every publish: 73,000/s at rule 1, 32,000/s at rule 49.
      publish('ares4/{deviceId}/telemetry', 'its reports'),
      publish('ares4/{deviceId}/telemetry/+', 'its reports, the format named in the topic (MQTT 3.1.1)'),
      publish('ares4/{deviceId}/status', 'online, and offline as its will', { retain: true }),
      publish('ares4/{deviceId}/responses/+', 'what became of a command'),
      publish('ares4/{deviceId}/certificate/request', 'a CSR, when its certificate nears its end'),
      subscribe('ares4/{deviceId}/commands/+', 'commands to it'),
      subscribe('ares4/{deviceId}/receipts', 'which of its reports are committed'),
      subscribe('ares4/{deviceId}/errors', 'which of its reports were refused, and why'),
      subscribe('ares4/{deviceId}/certificate/response', 'its new certificate'),
    ],
  },
  listener: {
    title: 'Listener',
    zone: 'services',
    identity: 'certificate of the service, CN `listener.service.ares4.internal`',
    clientId: '`ares4-mqtt-listener-` and eight hexadecimal digits',
    permissions: [
      publish('ares4/+/receipts', 'what is committed'),
      publish('ares4/+/errors', 'what was refused'),
      publish('ares4/+/commands/+', 'commands of people'),
      publish('ares4/+/certificate/response', 'new certificates'),
      publish('ares4-services/listeners/+', 'that it is there and when it committed last, to the other listeners'),
      subscribe('ares4/+/telemetry', 'all reports', exact),
      subscribe('ares4/+/telemetry/+', 'all reports, the format named in the topic', exact),
      subscribe('ares4/+/status', 'who is there', exact),
      subscribe('ares4/+/responses/+', 'what became of commands', exact),
      subscribe('ares4/+/certificate/request', 'requests for certificates', exact),
      subscribe('ares4-services/listeners/+', 'the other listeners', exact),
    ],
  },
  server: {
    title: 'Server process of api',
    zone: 'services',
    identity: 'certificate of the service, CN `api.service.ares4.internal`',
    clientId: '`ares-server-v2-` and eight hexadecimal digits',
    // No more than api can do through a listener anyway. The client id alone gives nothing: anyone can choose it.
    permissions: [
      publish('ares4/+/commands/+', 'commands of people'),
      subscribe('ares4/+/responses/+', 'what became of commands', exact),
    ],
  },
  user: {
    title: 'Person or app',
    zone: 'users',
    identity: 'e-mail as username, access token as password',
    clientId: 'the e-mail, or the e-mail, `/` and a name of up to 64 characters of `[A-Za-z0-9_-]`',
    permissions: [
      subscribe('ares4/{deviceId}/telemetry', 'reports of a device', viewer),
      subscribe('ares4/{deviceId}/telemetry/+', 'reports of a device, the format named in the topic', viewer),
      subscribe('ares4/{deviceId}/status', 'whether the device is there', viewer),
      subscribe('ares4/{deviceId}/receipts', 'what of it is committed', viewer),
      subscribe('ares4/{deviceId}/responses/+', 'what became of commands', operator),
      publish('ares4/{deviceId}/commands/+', 'commands to the device', operator),
    ],
  },
}

/** Stable name of a rule, as decisions, logs and the page show it. */
export const ruleName = (className: ClassName, permission: Permission): string =>
  `${className} may ${permission.action} ${permission.topic}`
