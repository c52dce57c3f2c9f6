import type { Logger } from '@ares/chassis'
import type { BrokerSessions, PersonClients } from '../../broker/broker-sessions'
import type { Notifications } from '../../database/notifications'
import { DIRECTORY_CHANNEL } from '../directory/directory.changes'
import type { DirectoryReach } from '../revocations/revocations'
import type { PersonChangeStore } from './person-changes.store'

const AT_ONCE = 100
const REACH_WITHIN_MS = 5_000

/**
 * PersonSessions: ends the MQTT sessions of people whose rights have changed, because the broker does not look at a
 * subscription again once it is granted, not even when a session is taken up later.
 *
 *   WAITING ──change of a person | every 5 s──▶ AUTHORIZERS ──they decide from it──▶ KICK ──▶ the position is written ──▶ WAITING
 *
 * A person who still has rights is back in a moment, with those. The changes are those of the directory, read from the
 * position on: what a restart, or a broker that is away, leaves undone is done later. No second kick is needed as with
 * devices: what a person subscribes to is decided after the connection stands, and by then from the change.
 */
export class PersonSessions {
  private timer: NodeJS.Timeout | undefined
  private running: Promise<void> = Promise.resolve()
  private wanted = false
  private stopped = false
  private unsubscribe: () => void = () => {}

  constructor(
    private readonly parts: {
      readonly changes: PersonChangeStore
      readonly broker: PersonClients & BrokerSessions
      readonly directory: DirectoryReach
      readonly notifications: Pick<Notifications, 'on'>
      readonly logger: Pick<Logger, 'info' | 'warn'>
    },
  ) {}

  async start(everyMs = 5_000): Promise<void> {
    const { changes, notifications } = this.parts
    await changes.begin()
    this.unsubscribe = notifications.on(DIRECTORY_CHANNEL, () => this.wake())
    this.timer = setInterval(() => this.wake(), everyMs).unref()
    this.wake()
  }

  async stop(): Promise<void> {
    this.stopped = true
    this.unsubscribe()
    clearInterval(this.timer)
    await this.running
  }

  /** One run at a time; what comes meanwhile is looked for in the next. */
  private wake(): void {
    if (this.wanted || this.stopped) return
    this.wanted = true
    this.running = this.running.then(async () => {
      this.wanted = false
      try {
        while (!this.stopped && (await this.workOff())) {}
      } catch (error) {
        this.parts.logger.warn('MQTT sessions of people whose rights changed could not be ended; trying again', {
          error: String(error),
        })
      }
    })
  }

  /** @returns whether there may be more */
  private async workOff(): Promise<boolean> {
    const { changes, directory, broker, logger } = this.parts
    const rows = await changes.next(AT_ONCE)
    const last = rows.at(-1)
    if (!last) return false
    if (!(await directory.reached(BigInt(last.version), REACH_WITHIN_MS))) {
      throw new Error(`the authorizers do not decide from version ${last.version} yet`)
    }
    for (const email of new Set(rows.flatMap((row) => row.email ?? []))) {
      const clients = await broker.clientsOf(email)
      for (const clientId of clients) await broker.kick(clientId)
      if (clients.length > 0) logger.info('ended the MQTT sessions of a person whose rights changed', { email })
    }
    await changes.advance(last.version)
    return rows.length === AT_ONCE
  }
}
