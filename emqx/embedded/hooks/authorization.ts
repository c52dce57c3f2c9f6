import type { AuthorizationConf } from '../conf/broker-conf'
import type { BrokerLogger } from '../logger'
import type { Peer } from '../peer'
import { authorizedTopic, TopicFilter } from '../topic-filter'
import type { Action } from './acl'
import { BodyTemplate } from './body-template'
import { mediaTypeOf, type Webhook, type WebhookAnswer } from './webhook'

export type AuthzVerdict = 'allow' | 'deny' | 'nomatch'

const PLACEHOLDERS = [
  'clientid',
  'username',
  'peerhost',
  'cert_common_name',
  'cert_pem',
  'topic',
  'action',
  'qos',
  'retain',
  'proto_name',
  'access',
  'mountpoint',
] as const

/**
 * Decides publishes and subscriptions in EMQX's order: superuser, the connection's cache, the `acl` of its authn answer,
 * the HTTP source, `no_match`. Whatever memory can answer is answered at once; requests of one connection go out one
 * after the other, and what comes after a request waits for it.
 */
export class Authorization {
  private readonly template: BodyTemplate<(typeof PLACEHOLDERS)[number]>
  private readonly uncached: readonly TopicFilter[]

  constructor(
    private readonly conf: AuthorizationConf,
    private readonly webhook: Webhook | undefined,
    private readonly logger: BrokerLogger,
  ) {
    this.template = new BodyTemplate(conf.sources[0]?.body ?? {}, PLACEHOLDERS)
    this.uncached = conf.cache.excludes.map((filter) => new TopicFilter(filter.replace(/^eq /, '')))
  }

  /** Calls `done` in the same turn when memory knows the answer. */
  authorize(peer: Peer, asked: Action, done: (allowed: boolean) => void): void {
    const action = asked.topic.startsWith('$') ? { ...asked, topic: authorizedTopic(asked.topic) } : asked
    if (peer.waitingDecisions === 0) {
      const known = this.known(peer, action)
      if (known !== undefined) {
        done(known)
        return
      }
    }
    peer.waitingDecisions++
    peer.lastDecision = peer.lastDecision.then(async () => {
      const allowed = this.known(peer, action) ?? (await this.ask(peer, action))
      peer.waitingDecisions--
      done(allowed)
    })
  }

  private known(peer: Peer, action: Action): boolean | undefined {
    if (peer.superuser) return true
    const fromRules = peer.decideByRules(action)
    if (fromRules !== undefined) return fromRules
    if (!this.webhook) return this.conf.no_match === 'allow'
    if (!this.conf.cache.enable) return undefined
    const entry = peer.verdicts.get(cacheKey(action))
    return entry === undefined || Date.now() - entry.askedAt >= this.conf.cache.ttl ? undefined : entry.allowed
  }

  private async ask(peer: Peer, action: Action): Promise<boolean> {
    const askedAt = Date.now()
    const verdict = this.webhook ? authzVerdict(await this.webhook.ask(this.bodyOf(peer, action))) : 'nomatch'
    const allowed = verdict === 'nomatch' ? this.conf.no_match === 'allow' : verdict === 'allow'
    this.remember(peer, action, allowed, askedAt)
    if (!allowed) {
      const source = verdict === 'nomatch' ? "'authorization.no_match' config" : 'http'
      this.logger.debug('authorization_permission_denied', { clientid: peer.clientId, topic: action.topic, source })
    }
    return allowed
  }

  private bodyOf(peer: Peer, action: Action): Record<string, string> {
    return this.template.render({
      clientid: peer.clientId,
      username: peer.username ?? '',
      peerhost: peer.host,
      cert_common_name: peer.commonName,
      // EMQX knows the placeholder here, and always leaves it empty.
      cert_pem: '',
      topic: action.topic,
      action: action.kind,
      qos: String(action.qos),
      retain: String(action.kind === 'publish' && action.retain),
      proto_name: 'mqtt',
      access: action.kind === 'subscribe' ? '1' : '2',
      mountpoint: '',
    })
  }

  /** Also what came of an error is kept for `ttl`, as EMQX does. */
  private remember(peer: Peer, action: Action, allowed: boolean, askedAt: number): void {
    const { enable, max_size } = this.conf.cache
    if (!enable || this.uncached.some((filter) => filter.matches(action.topic))) return
    const key = cacheKey(action)
    peer.verdicts.delete(key)
    peer.verdicts.set(key, { allowed, askedAt })
    if (peer.verdicts.size <= max_size) return
    const oldest = peer.verdicts.keys().next().value
    if (oldest !== undefined) peer.verdicts.delete(oldest)
  }
}

/** What EMQX makes of an answer of its HTTP source. */
export function authzVerdict(answer: WebhookAnswer): AuthzVerdict {
  if (answer.kind === 'failure') return 'nomatch'
  if (answer.status === 204) return 'allow'
  if (answer.status !== 200) return 'nomatch'
  const result = resultOf(answer)
  return result === 'allow' || result === 'deny' ? result : 'nomatch'
}

function resultOf(answer: { contentType: string | undefined; body: string }): unknown {
  // Unlike the authenticator, the source takes an answer without content-type for JSON.
  const type = mediaTypeOf(answer.contentType) ?? 'json'
  if (type === 'form') return new URLSearchParams(answer.body).get('result')
  if (type !== 'json') return undefined
  try {
    const value: unknown = JSON.parse(answer.body)
    return typeof value === 'object' && value !== null ? (value as { result?: unknown }).result : undefined
  } catch {
    return undefined
  }
}

function cacheKey(action: Action): string {
  return `${action.kind}/${action.qos}/${action.retain}/${action.topic}`
}
