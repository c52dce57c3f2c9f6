import type { Revocation } from '../../generated/prisma/client'

/**
 * A revocation takes effect in this order, because a client that is kicked is back within milliseconds:
 *
 *   PLANNED ─vault─▶ ─database─▶ ─authorizers─▶ ─kick─▶ ─audit─▶ (the caller has his answer) ─1 s─▶ ─secondKick─▶ FINISHED
 *
 *   vault        every serial of the plan is revoked in Vault
 *   database     certificate and device are what they shall be, and the directory's next version says so
 *   authorizers  every authorizer decides from that version
 *   kick         the broker has ended the connection and the session
 *   audit        the row that says what was done, with the time of each step
 *   secondKick   a connect that was allowed just before the change can be registered just after the kick
 *
 * The plan is a row that is written before the first step; each step writes its time when it is done, and each may be
 * done twice. So whatever ends in the middle, the worker of any api goes on from the first step without a time.
 *
 * A step that fails does not keep the device online: without Vault everything else is done all the same, and without an
 * authorizer's word the client is kicked, and kicked again when that word is there. Only `database` holds up what follows.
 */
export const STEPS = ['vault', 'database', 'authorizers', 'kick', 'audit', 'secondKick'] as const
export type Step = (typeof STEPS)[number]

/** The steps that the caller waits for. */
export const ANSWERED_STEPS: readonly Step[] = STEPS.slice(0, -1)

/** The time of a step; null: not done. */
export function doneAt(plan: Revocation, step: Step): Date | null {
  return plan[COLUMN[step]]
}

export const COLUMN = {
  vault: 'vaultAt',
  database: 'databaseAt',
  authorizers: 'authorizersAt',
  kick: 'kickAt',
  audit: 'auditAt',
  secondKick: 'secondKickAt',
} as const satisfies Record<Step, keyof Revocation>

/** Whether it has taken effect: all is done but the second kick. */
export const isEffective = (plan: Revocation): boolean => ANSWERED_STEPS.every((step) => doneAt(plan, step) !== null)

/** What the revocations need of the directory. */
export interface DirectoryReach {
  /** Whether every authorizer decides from that version or a newer one, within the time; false: not, or there is none. */
  reached(version: bigint, withinMs: number): Promise<boolean>
}
