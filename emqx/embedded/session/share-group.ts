import { lowerQos, type Message, type Qos } from './message'
import type { Session } from './session'

/**
 * The members of one shared subscription. Each message goes to one member, in turn (EMQX's `round_robin`), whether the
 * member is connected or only its session lives.
 */
export class ShareGroup {
  private readonly members: { readonly session: Session; readonly qos: Qos }[] = []
  private turn = 0

  get empty(): boolean {
    return this.members.length === 0
  }

  join(session: Session, qos: Qos): void {
    const at = this.members.findIndex((member) => member.session === session)
    if (at < 0) this.members.push({ session, qos })
    else this.members[at] = { session, qos }
  }

  leave(session: Session): void {
    const at = this.members.findIndex((member) => member.session === session)
    if (at >= 0) this.members.splice(at, 1)
  }

  /** False: the group has no member, the message is lost. */
  dispatch(message: Message): boolean {
    if (this.members.length === 0) return false
    this.turn = (this.turn + 1) % this.members.length
    const member = this.members[this.turn]
    if (!member) return false
    const qos = lowerQos(message.qos, member.qos)
    member.session.deliver({ message, qos, retain: false, group: this })
    return true
  }
}
