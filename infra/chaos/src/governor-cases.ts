import { setTimeout as sleep } from 'node:timers/promises'
import type { Stack } from '@ares/embedded'
import type { Link } from './link'

/** What a cause may lay hands on. */
export interface GovernorStage {
  readonly stack: Stack
  readonly toDatabase: Link
  /** What went to the database a second while everything was well. */
  readonly bytesPerSecond: number
  readonly lastsMs: number
}

export interface GovernorCase {
  readonly name: string
  /** For a person. */
  readonly what: string
  readonly isGoverned: boolean
  /** Brings the cause and takes it away again; resolves when it is gone. */
  strike(stage: GovernorStage): Promise<void>
}

/**
 * A quarter of PostgreSQL's time would not be a quarter of what it commits: it is not the part that is busiest. A way to
 * it that carries a quarter of the bytes that were carried before is: a report is always as long. What was committed
 * meanwhile is in the table, so it can be seen whether it really was a quarter.
 */
const slowDatabase = {
  name: 'slow-database',
  what: 'PostgreSQL is given a quarter of what it was given before',
  strike: async ({ toDatabase, bytesPerSecond, lastsMs }: GovernorStage) => {
    toDatabase.limit(bytesPerSecond / 4)
    await sleep(lastsMs)
    toDatabase.limit(undefined)
  },
}

const LISTENERS = ['listener', 'listener-2'] as const

const stoppedListeners = {
  name: 'stopped-listeners',
  what: 'every listener is stopped',
  strike: async ({ stack, lastsMs }: GovernorStage) => {
    await Promise.all(LISTENERS.map((name) => stack.stopPart(name)))
    await sleep(lastsMs)
    await Promise.all(LISTENERS.map((name) => stack.startPart(name)))
  },
}

export const GOVERNOR_CASES: readonly GovernorCase[] = [slowDatabase, stoppedListeners].flatMap((cause) => [
  { ...cause, isGoverned: true },
  { ...cause, name: `${cause.name}-ungoverned`, what: `${cause.what}, and nobody governs`, isGoverned: false },
])
