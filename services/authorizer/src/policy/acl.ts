import { type ClassName, type Permission, POLICY, type Qos } from './policy'

/** A rule of the `acl` list in an authn answer, EMQX 5.8. EMQX takes the first that matches. */
export interface AclRule {
  readonly permission: 'allow' | 'deny'
  readonly action: 'publish' | 'subscribe' | 'all'
  readonly topic: string
  readonly qos?: readonly Qos[]
  readonly retain?: boolean
}

/** What no rule before it has allowed is denied; without it EMQX would go on to ask /mqtt/authz. */
export const DENY_ALL: AclRule = { permission: 'deny', action: 'all', topic: '#' }

/**
 * The permissions of a class as EMQX's rules, so that EMQX's matcher gives the same answers as containment does.
 *
 * EMQX matches a filter as if it were a topic. That is right for publications, for templates without a wildcard and for
 * `+` in the middle (a filter has `#` only at its end). Wrong is a template that ends with `+`: it takes `#` for a name.
 * - exact permissions become `eq`: the filter itself and no other;
 * - `prefix/+` with a plain prefix gets a denial of `eq prefix/#` before it, the only filter that EMQX would admit wrongly.
 * @param deviceId put in for `{deviceId}`: characters of [a-z0-9-], as a certificate's CN may have them
 * @returns the JSON text of a list of AclRule; made in one piece once, because at a connect it is what takes longest
 */
export const aclOf = (className: Exclude<ClassName, 'user'>, deviceId = ''): string => TEXTS[className].join(deviceId)

function rulesOf(permission: Permission): AclRule[] {
  const { action, topic, qos, retain } = permission
  const allow = (shown: string): AclRule => ({
    permission: 'allow',
    action,
    topic: shown,
    qos,
    ...(retain === undefined ? {} : { retain }),
  })
  if (action === 'publish' || !/[+#]/.test(topic)) return [allow(topic)]
  if (permission.match === 'exact') return [allow(`eq ${topic}`)]
  const prefix = topic.slice(0, -1)
  if (!topic.endsWith('/+') || /[+#]/.test(prefix)) {
    throw new Error(`the permission to subscribe to ${topic} cannot be told to EMQX safely; make it exact`)
  }
  return [{ permission: 'deny', action, topic: `eq ${prefix}#` }, allow(topic)]
}

const templateOf = (className: ClassName): readonly AclRule[] => [
  ...POLICY[className].permissions.flatMap(rulesOf),
  DENY_ALL,
]

/** Cut where the device's id goes in. */
const textOf = (className: ClassName): readonly string[] => JSON.stringify(templateOf(className)).split('{deviceId}')

const TEXTS = { device: textOf('device'), listener: textOf('listener'), server: textOf('server') }
