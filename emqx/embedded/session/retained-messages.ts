import { TopicFilter } from '../topic-filter'
import type { Message } from './message'

/** The last retained message of each topic; an empty payload removes it ([MQTT-3.3.1-10]). In memory only. */
export class RetainedMessages {
  private readonly messages = new Map<string, Message>()

  get size(): number {
    return this.messages.size
  }

  keep(message: Message): void {
    if (message.payload.length === 0) this.messages.delete(message.topic)
    else this.messages.set(message.topic, { ...message, payload: Buffer.from(message.payload) })
  }

  /** A shared subscription gets none ([MQTT5 4.8.2], and EMQX). */
  matching(filter: string): Message[] {
    if (filter.startsWith('$share/')) return []
    const matcher = new TopicFilter(filter)
    return [...this.messages.values()].filter((message) => matcher.matches(message.topic))
  }
}
