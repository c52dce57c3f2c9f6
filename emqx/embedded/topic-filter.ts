/**
 * EMQX's `emqx_topic:match`: a topic, or a filter taken as if it were a topic, against a filter. That last use is a
 * weakness of EMQX (a subscription to `dev/1/#` passes a rule `dev/1/+`), kept here on purpose: what must not be allowed
 * has to be refused by the authorizer, and a test against this broker must show it when it is not.
 */
export class TopicFilter {
  private readonly words: readonly string[]
  private readonly wild: boolean

  constructor(readonly text: string) {
    this.words = text.split('/')
    this.wild = this.words.some((word) => word === '+' || word === '#')
  }

  matches(topic: string): boolean {
    if (!this.wild) return topic === this.text
    // [MQTT-4.7.2-1]: a filter that starts with a wildcard does not match a topic that starts with $
    const first = this.words[0]
    if (topic.startsWith('$') && (first === '+' || first === '#')) return false
    const words = topic.split('/')
    for (let i = 0; i < this.words.length; i++) {
      const wanted = this.words[i]
      if (wanted === '#') return true
      if (i >= words.length) return false
      if (wanted !== '+' && wanted !== words[i]) return false
    }
    return words.length === this.words.length
  }
}

export interface SharedFilter {
  readonly group: string | undefined
  readonly filter: string
}

/** `$share/<group>/<filter>` in its parts; any other filter has no group. */
export function sharedFilter(subscription: string): SharedFilter {
  const parts = /^\$share\/([^/]+)\/(.+)$/.exec(subscription)
  if (parts?.[1] !== undefined && parts[2] !== undefined) return { group: parts[1], filter: parts[2] }
  if (subscription.startsWith('$queue/')) return { group: '$queue', filter: subscription.slice('$queue/'.length) }
  return { group: undefined, filter: subscription }
}

/** The topic that EMQX asks authorization for: without `$share/<group>/`, `$queue/`, `$exclusive/`, `$delayed/<n>/`. */
export function authorizedTopic(topic: string): string {
  if (!topic.startsWith('$')) return topic
  return sharedFilter(topic)
    .filter.replace(/^\$exclusive\//, '')
    .replace(/^\$delayed\/\d+\//, '')
}
