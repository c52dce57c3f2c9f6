import type { Logger } from '@ares/chassis'
import type { Reach } from './ingest/sink'
import type { MqttSession } from './mqtt/session'
import type { Peers } from './peers'

/**
 * When a listener leaves its messages to others.
 *
 *   GROUP ──commits have failed for `afterMs`, and another listener commits──▶ ASIDE
 *     ▲                                                                          │
 *     └──one of ours went through | no other listener is in the group────────────┘
 *
 *   only this one is cut off from api      another one commits: it goes aside, the broker gives its messages to that one
 *   api or PostgreSQL is gone for all      nobody commits: nobody goes, everybody holds what he has
 *   it is the only one, or the last        nobody is heard: it stays; one that is aside comes back and holds
 *   the broker is gone                     nobody is heard, so it comes back into the group with the next connection
 *
 * Two cannot leave because of each other: whoever goes has not committed for longer than his last commit counts as news.
 * Aside, the batches that were in hand are tried on and on. That is how it finds out that api is there again; what
 * another listener has committed meanwhile is a duplicate then, as after any redelivery.
 */
export class StandingAside {
  private timer: NodeJS.Timeout | undefined
  private isAside = false

  constructor(
    private readonly parts: {
      readonly afterMs: number
      readonly session: Pick<MqttSession, 'moveTo'>
      readonly reach: Pick<Reach, 'failedForMs'>
      readonly peers: Pick<Peers, 'isAnyThere' | 'isAnyCommitting' | 'sayGoodbye'>
      readonly logger: Pick<Logger, 'info' | 'warn'>
      readonly everyMs?: number
    },
  ) {}

  start(): void {
    this.timer = setInterval(() => this.consider(), this.parts.everyMs ?? 1_000).unref()
  }

  stop(): void {
    clearInterval(this.timer)
  }

  private consider(): void {
    const { afterMs, reach, peers } = this.parts
    if (!this.isAside) {
      if (reach.failedForMs > afterMs && peers.isAnyCommitting) this.goAside()
    } else if (reach.failedForMs === 0) this.comeBack('api can be reached again')
    else if (!peers.isAnyThere) this.comeBack('no other listener is there any more')
  }

  private goAside(): void {
    const { session, reach, peers, logger } = this.parts
    logger.warn('this listener cannot commit and another one can: it leaves the group until that has changed', {
      failedForMs: reach.failedForMs,
    })
    this.isAside = true
    peers.sayGoodbye()
    session.moveTo('aside')
  }

  private comeBack(why: string): void {
    this.parts.logger.info('this listener comes back into the group', { why })
    this.isAside = false
    this.parts.session.moveTo('group')
  }
}
