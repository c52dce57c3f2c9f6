/**
 * At which rate the broker should take messages from devices: the bucket of their listener, in messages a second.
 *
 *             ┌──pressed──▶ LOWERING ──not pressed──▶ RISING ──at the maximum──▶ FULL
 *      FULL ──┤                 ▲──────pressed─────────┘
 *             └──no listener──▶ NOBODY ──one is back──▶ RISING | LOWERING       (from every phase)
 *
 * Pressed: the listeners hold nearly all that they may, so the broker queues, or their oldest message waits too long.
 *
 *   LOWERING  towards 80 % of what is being committed: the queue shrinks while the store works at its full speed, however
 *             slow that is. When the store is quick again, this already raises the rate while the queue is emptied.
 *   RISING    doubles up to 90 % of the last known capacity, where it was just overrun; from there it feels its way, 4,
 *             8, 16, then 32 % of the maximum a second: a small step while that limit is near, seconds when it is gone.
 *   NOBODY    halves down to the floor: what comes in waits in the broker's memory alone.
 *
 * One step a second; a step at most halves or doubles the rate (or adds 32 % of the maximum), and the rate stays between
 * floor and maximum. The floor is not nothing: keepalives count as messages, and a client that is not read is dropped.
 */

export type Phase = 'full' | 'lowering' | 'rising' | 'nobody'

/** What the listeners say together. */
export interface TotalLoad {
  /** Listeners that report and have a session. */
  readonly listeners: number
  readonly committedPerSecond: number
  readonly heldMessages: number
  /** Messages that they may hold together. */
  readonly window: number
  readonly oldestHeldMs: number
}

export interface Limits {
  /** Messages a second. */
  readonly floor: number
  readonly maximum: number
  /** Age of the oldest held message from which it is too old. */
  readonly patienceMs: number
}

export interface LawState {
  readonly phase: Phase
  /** Messages a second. */
  readonly rate: number
  /** What was committed a second, smoothed. */
  readonly commitRate: number
  /** What could be committed when it was too much last. */
  readonly capacity: number
  /** Steps since the last pressure, above the knee. */
  readonly steps: number
}

export const initialState = (rate: number, limits: Limits): LawState => ({
  phase: rate >= limits.maximum ? 'full' : 'rising',
  rate: bounded(rate, limits),
  commitRate: 0,
  capacity: limits.maximum,
  steps: 0,
})

/** One second later. */
export function nextState(state: LawState, load: TotalLoad, limits: Limits): LawState {
  const commitRate = (state.commitRate + load.committedPerSecond) / 2
  if (load.listeners === 0) {
    return { phase: 'nobody', rate: bounded(state.rate / 2, limits), commitRate, capacity: limits.floor, steps: 0 }
  }
  if (isPressed(load, limits)) {
    const target = bounded(commitRate * DRAINING, limits)
    const rate = Math.min(Math.max(target, state.rate / 2), state.rate * 2)
    return {
      phase: 'lowering',
      rate: bounded(rate, limits),
      commitRate,
      capacity: bounded(commitRate, limits),
      steps: 0,
    }
  }
  return rise({ ...state, commitRate }, limits)
}

export const isPressed = (load: TotalLoad, { patienceMs }: Limits): boolean =>
  load.heldMessages >= load.window * NEARLY_ALL || load.oldestHeldMs > patienceMs

function rise(state: LawState, limits: Limits): LawState {
  const knee = state.capacity * KNEE
  const isBelow = state.rate < knee
  const steps = isBelow ? 0 : state.steps + 1
  const rate = isBelow
    ? Math.min(knee, state.rate * 2)
    : state.rate + limits.maximum * FIRST_STEP * 2 ** Math.min(steps, LARGEST_STEP)
  if (rate < limits.maximum) return { ...state, phase: 'rising', rate: bounded(rate, limits), steps }
  return { ...state, phase: 'full', rate: limits.maximum, capacity: limits.maximum, steps: 0 }
}

const bounded = (rate: number, { floor, maximum }: Limits): number => Math.min(Math.max(rate, floor), maximum)

const DRAINING = 0.8
const NEARLY_ALL = 0.8
const KNEE = 0.9
const FIRST_STEP = 0.02
const LARGEST_STEP = 4
