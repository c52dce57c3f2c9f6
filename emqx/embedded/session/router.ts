import { sharedFilter } from '../topic-filter'
import { lowerQos, type Message, type Qos } from './message'
import type { Session } from './session'
import { ShareGroup } from './share-group'

interface Subscribers {
  readonly direct: Map<Session, Qos>
  readonly groups: Map<string, ShareGroup>
}

interface Node {
  readonly children: Map<string, Node>
  subscribers: Subscribers | undefined
}

/** From a topic to the sessions that subscribed to it. Overlapping subscriptions deliver a copy each, as in EMQX. */
export class Router {
  private readonly root: Node = newNode()

  subscribe(session: Session, subscription: string, qos: Qos): void {
    const { group, filter } = sharedFilter(subscription)
    let node = this.root
    for (const word of filter.split('/')) {
      let next = node.children.get(word)
      if (!next) {
        next = newNode()
        node.children.set(word, next)
      }
      node = next
    }
    node.subscribers ??= { direct: new Map(), groups: new Map() }
    if (group === undefined) {
      node.subscribers.direct.set(session, qos)
      return
    }
    let shared = node.subscribers.groups.get(group)
    if (!shared) {
      shared = new ShareGroup()
      node.subscribers.groups.set(group, shared)
    }
    shared.join(session, qos)
  }

  unsubscribe(session: Session, subscription: string): void {
    const { group, filter } = sharedFilter(subscription)
    const words = filter.split('/')
    const path = [this.root]
    for (const word of words) {
      const next = path.at(-1)?.children.get(word)
      if (!next) return
      path.push(next)
    }
    const node = path.at(-1)
    if (!node?.subscribers) return
    if (group === undefined) node.subscribers.direct.delete(session)
    else leaveGroup(node.subscribers, group, session)
    if (node.subscribers.direct.size === 0 && node.subscribers.groups.size === 0) node.subscribers = undefined
    prune(path, words)
  }

  /** The number of sessions that took the message. */
  route(message: Message): number {
    const topic = message.topic
    return visit(this.root, topic.split('/'), 0, message, topic.charCodeAt(0) === DOLLAR)
  }
}

const DOLLAR = 36

function visit(node: Node, words: readonly string[], depth: number, message: Message, dollar: boolean): number {
  // [MQTT-4.7.2-1]: wildcards at the start do not match $SYS and its like.
  const wildcards = !(dollar && depth === 0)
  let taken = 0
  const rest = wildcards ? node.children.get('#') : undefined
  if (rest?.subscribers) taken += hand(rest.subscribers, message)
  const word = words[depth]
  if (word === undefined) return node.subscribers ? taken + hand(node.subscribers, message) : taken
  const exact = node.children.get(word)
  if (exact) taken += visit(exact, words, depth + 1, message, dollar)
  const any = wildcards ? node.children.get('+') : undefined
  if (any) taken += visit(any, words, depth + 1, message, dollar)
  return taken
}

function hand(subscribers: Subscribers, message: Message): number {
  let taken = subscribers.direct.size
  for (const [session, granted] of subscribers.direct) {
    const qos = lowerQos(message.qos, granted)
    session.deliver({ message, qos, retain: false, group: undefined })
  }
  for (const group of subscribers.groups.values()) if (group.dispatch(message)) taken++
  return taken
}

function leaveGroup(subscribers: Subscribers, name: string, session: Session): void {
  const group = subscribers.groups.get(name)
  group?.leave(session)
  if (group?.empty) subscribers.groups.delete(name)
}

function prune(path: readonly Node[], words: readonly string[]): void {
  for (let depth = words.length; depth > 0; depth--) {
    const node = path[depth]
    const word = words[depth - 1]
    if (!node || word === undefined || node.subscribers || node.children.size > 0) return
    path[depth - 1]?.children.delete(word)
  }
}

function newNode(): Node {
  return { children: new Map(), subscribers: undefined }
}
