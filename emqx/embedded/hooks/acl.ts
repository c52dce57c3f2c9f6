import { TopicFilter } from '../topic-filter'

export interface Action {
  readonly kind: 'publish' | 'subscribe'
  readonly topic: string
  readonly qos: number
  readonly retain: boolean
}

export interface AclSubject {
  readonly clientId: string
  readonly username: string | undefined
  readonly commonName: string
}

export class BadAclRule extends Error {
  override readonly name = 'BadAclRule'
}

/** The `acl` of an authn answer for one connection: first match wins. */
export class Acl {
  private constructor(private readonly rules: readonly Rule[]) {}

  /**
   * Reads the list as EMQX does.
   * @throws BadAclRule  a rule without topic, or with an unknown permission, action, QoS or retain
   */
  static read(list: readonly unknown[], subject: AclSubject): Acl {
    return new Acl(list.map((entry) => readRule(entry, subject)))
  }

  /** Undefined: no rule matches, the next source is asked. */
  decide(action: Action): 'allow' | 'deny' | undefined {
    for (const rule of this.rules) {
      if (rule.action !== 'all' && rule.action !== action.kind) continue
      if (rule.qos && !rule.qos.includes(action.qos)) continue
      if (rule.retain !== undefined && action.kind === 'publish' && rule.retain !== action.retain) continue
      for (const topic of rule.topics) if (topic.matches(action.topic)) return rule.permission
    }
    return undefined
  }
}

interface Rule {
  readonly permission: 'allow' | 'deny'
  readonly action: 'publish' | 'subscribe' | 'all'
  readonly qos: readonly number[] | undefined
  readonly retain: boolean | undefined
  readonly topics: readonly TopicMatch[]
}

interface TopicMatch {
  matches(topic: string): boolean
}

const ACTIONS: Readonly<Record<string, Rule['action']>> = {
  publish: 'publish',
  pub: 'publish',
  subscribe: 'subscribe',
  sub: 'subscribe',
  all: 'all',
}

function readRule(entry: unknown, subject: AclSubject): Rule {
  if (typeof entry !== 'object' || entry === null) throw new BadAclRule('a rule is not an object')
  const { permission, action, topic, topics, qos, retain } = entry as Record<string, unknown>
  if (permission !== 'allow' && permission !== 'deny') throw new BadAclRule('unknown permission')
  const kind = typeof action === 'string' && Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : undefined
  if (!kind) throw new BadAclRule('unknown action')
  const names = topic === undefined ? topics : [topic]
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) throw new BadAclRule('no topic')
  return {
    permission,
    action: kind,
    qos: readQos(qos),
    retain: readRetain(retain),
    topics: names.flatMap((name) => topicMatch(name, subject) ?? []),
  }
}

function readQos(value: unknown): readonly number[] | undefined {
  if (value === undefined) return undefined
  const levels = (Array.isArray(value) ? value : String(value).split(',')).map(Number)
  if (!levels.every((level) => level === 0 || level === 1 || level === 2)) throw new BadAclRule('unknown qos')
  return levels
}

function readRetain(value: unknown): boolean | undefined {
  if (value === undefined || value === 'all') return undefined
  if (value === true || value === 'true' || value === 1 || value === '1') return true
  if (value === false || value === 'false' || value === 0 || value === '0') return false
  throw new BadAclRule('unknown retain')
}

/** A topic with a placeholder that has no value matches nothing. */
function topicMatch(text: string, subject: AclSubject): TopicMatch | undefined {
  const values: Readonly<Record<string, string | undefined>> = {
    username: subject.username,
    clientid: subject.clientId,
    cert_common_name: subject.commonName || undefined,
  }
  let missing = false
  const topic = text.replace(/\$\{(username|clientid|cert_common_name)\}/g, (_, name: string) => {
    const value = values[name]
    if (value === undefined) missing = true
    return value ?? ''
  })
  if (missing) return undefined
  if (!topic.startsWith('eq ')) return new TopicFilter(topic)
  const exact = topic.slice('eq '.length)
  return { matches: (asked) => asked === exact }
}
