import { setTimeout as sleep } from 'node:timers/promises'
import type { PartName, Stack } from '@ares/embedded'
import type { Word } from './device-record'
import type { Link } from './link'

/** What a case may lay hands on. */
export interface Stage {
  readonly stack: Stack
  readonly toDatabase: Link
  readonly toBroker: Link
  /** How long something stays away, in milliseconds. */
  readonly outageMs: number
}

export interface ChaosCase {
  readonly name: string
  /** For a person. */
  readonly what: string
  /** Whose word counts: see DeviceRecord. */
  readonly until: Word
  /** Does the harm and takes it away again; resolves when nothing is harmed by us any more. */
  strike(stage: Stage): Promise<void>
}

const LISTENERS = ['listener', 'listener-2'] as const

export const CHAOS_CASES: readonly ChaosCase[] = [
  killed('kill-listener', 'one of two listeners killed (-9)', 'listener'),
  killed('kill-listeners', 'both listeners killed (-9)', ...LISTENERS),
  killed('kill-api', 'api killed (-9)', 'api'),
  killed('kill-listener-and-api', 'a listener and api killed (-9)', 'listener', 'api'),
  {
    name: 'stop-postgres',
    what: 'PostgreSQL stopped, and started again after a while (20 s in a case of a minute)',
    until: 'puback',
    strike: async ({ stack, outageMs }) => {
      await stack.stopPart('postgres')
      await sleep(outageMs)
      await stack.startPart('postgres')
    },
  },
  {
    name: 'stop-listeners',
    what: 'both listeners stopped in good order, and started again after a while (20 s in a case of a minute)',
    until: 'puback',
    strike: async ({ stack, outageMs }) => {
      await Promise.all(LISTENERS.map((name) => stack.stopPart(name)))
      await sleep(outageMs)
      await Promise.all(LISTENERS.map((name) => stack.startPart(name)))
    },
  },
  {
    name: 'slow-database-link',
    what: 'the network between api and PostgreSQL lets something through a quarter of the time',
    until: 'puback',
    strike: async ({ toDatabase, outageMs }) => {
      for (const end = Date.now() + outageMs; Date.now() < end; ) {
        toDatabase.cut('hang')
        await sleep(90)
        toDatabase.heal()
        await sleep(30)
      }
    },
  },
  killed('kill-postgres', 'PostgreSQL killed (-9)', 'postgres'),
  cut(
    'hang-broker-link',
    'the network between listeners and broker takes nothing and says nothing',
    'toBroker',
    'hang',
  ),
  cut('close-broker-link', 'the network between listeners and broker closes every connection', 'toBroker', 'close'),
  cut(
    'hang-database-link',
    'the network between api and PostgreSQL takes nothing and says nothing',
    'toDatabase',
    'hang',
  ),
  cut('close-database-link', 'the network between api and PostgreSQL closes every connection', 'toDatabase', 'close'),
  {
    ...killed('restart-broker', 'the broker killed (-9): its queues and sessions are gone', 'broker'),
    until: 'receipt',
  },
  {
    name: 'all-at-once',
    what: 'listeners, api, PostgreSQL and broker killed (-9) while both networks hang',
    until: 'receipt',
    strike: async (stage) => {
      const { stack, toBroker, toDatabase, outageMs } = stage
      toBroker.cut('hang')
      toDatabase.cut('hang')
      for (const name of [...LISTENERS, 'api', 'postgres', 'broker'] as const) stack.kill(name, 'SIGKILL')
      await sleep(outageMs / 4)
      toBroker.heal()
      toDatabase.heal()
    },
  },
]

/** Killed without a word; the supervisor starts them again. */
function killed(name: string, what: string, ...parts: readonly PartName[]): ChaosCase {
  return {
    name,
    what,
    until: 'puback',
    strike: async ({ stack }) => {
      for (const part of parts) stack.kill(part, 'SIGKILL')
    },
  }
}

function cut(name: string, what: string, link: 'toBroker' | 'toDatabase', how: 'hang' | 'close'): ChaosCase {
  return {
    name,
    what: `${what}, for a while (10 s in a case of a minute)`,
    until: 'puback',
    strike: async (stage) => {
      stage[link].cut(how)
      await sleep(stage.outageMs / 2)
      stage[link].heal()
    },
  }
}
