import { topics } from '@ares/proto'
import type { Delivery } from './mqtt/holding-client'

export interface PeersParts {
  /** MQTT client id of this listener. */
  readonly clientId: string
  readonly session: {
    readonly problem: string | undefined
    tell(messages: ReadonlyArray<{ readonly topic: string; readonly payload: string }>): void
  }
  /** When this listener committed something last, epoch milliseconds; 0: never. */
  readonly committedAt: () => number
  readonly everyMs?: number
}

/** What one listener says, once a second and at QoS 0: a word that is late is worth nothing. */
interface News {
  /** When it said so, and when it committed something last, epoch milliseconds by its clock. 0: it leaves; never. */
  readonly at: number
  readonly committedAt: number
}

/**
 * What the listeners of the group tell each other through the broker. It is the way that does not lead through api: a
 * listener that cannot commit learns here whether another one can.
 *
 * News is as old as its sender says, so that what a link held back is not taken for new. Clocks that differ by more than
 * the limit make news look old: then nobody is heard, and everybody keeps what he has.
 */
export class Peers {
  private timer: NodeJS.Timeout | undefined
  private readonly heard = new Map<string, News>()

  constructor(private readonly parts: PeersParts) {}

  start(): void {
    this.timer = setInterval(() => this.tell(), this.parts.everyMs ?? 1_000).unref()
  }

  stop(): void {
    clearInterval(this.timer)
  }

  /** Takes what a listener says; what we said ourselves as well, and nothing comes of it. */
  take(delivery: Delivery, clientId: string): void {
    delivery.settle()
    const news = clientId === this.parts.clientId ? undefined : newsIn(delivery.payload)
    if (news) this.heard.set(clientId, news)
    for (const [id, { at }] of this.heard) if (isOld(at)) this.heard.delete(id)
  }

  /** Says that this listener leaves the group: the others need not wait until its last word is old. */
  sayGoodbye(): void {
    this.say({ at: 0, committedAt: 0 })
  }

  /** Whether another listener is in the group. */
  get isAnyThere(): boolean {
    return [...this.heard.values()].some(({ at }) => !isOld(at))
  }

  /** Whether another listener is in the group and can commit. */
  get isAnyCommitting(): boolean {
    return [...this.heard.values()].some(({ committedAt }) => !isOld(committedAt))
  }

  private tell(): void {
    // Whoever stands aside is not there for the others.
    if (this.parts.session.problem === undefined) this.say({ at: Date.now(), committedAt: this.parts.committedAt() })
  }

  private say(news: News): void {
    const { clientId, session } = this.parts
    session.tell([{ topic: topics.listenerNews(clientId), payload: JSON.stringify(news) }])
  }
}

/** How long a word counts: five in a row that did not come. */
export const PEER_NEWS_MS = 5_000

const isOld = (at: number): boolean => Math.abs(Date.now() - at) > PEER_NEWS_MS

function newsIn(payload: Buffer): News | undefined {
  try {
    const { at, committedAt } = JSON.parse(payload.toString()) as Partial<Record<keyof News, unknown>>
    return typeof at === 'number' && typeof committedAt === 'number' ? { at, committedAt } : undefined
  } catch {
    return undefined
  }
}
