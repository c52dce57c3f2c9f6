import { initialState, type LawState, type Limits, nextState } from './control-law'

/**
 * The law against a model: publishers that always want more, a bucket that follows within a second, a broker that queues,
 * two listeners with a window of 2,000 each, and a store with a capacity that the test changes.
 */
const limits: Limits = { floor: 500, maximum: 8_000, patienceMs: 1_500 }
const WINDOW = 4_000
const STEP_S = 0.05

interface Moment {
  readonly second: number
  readonly rate: number
  readonly admitted: number
  readonly committed: number
  /** Messages in the broker's memory. */
  readonly queue: number
  readonly phase: LawState['phase']
}

function simulate(
  seconds: number,
  capacityAt: (second: number) => number,
  listenersAt = (_second: number) => 2,
): Moment[] {
  let state = initialState(limits.maximum, limits)
  let bucket = state.rate
  let waiting = 0
  const moments: Moment[] = []
  for (let second = 0; second < seconds; second += 1) {
    let committed = 0
    let admitted = 0
    for (let t = 0; t < 1; t += STEP_S) {
      const comesIn = bucket * STEP_S
      admitted += comesIn
      waiting += comesIn
      const done = listenersAt(second) > 0 ? Math.min(waiting, capacityAt(second) * STEP_S) : 0
      waiting -= done
      committed += done
    }
    const listeners = listenersAt(second)
    const held = listeners === 0 ? 0 : Math.min(waiting, WINDOW)
    const oldestHeldMs = held === 0 ? 0 : (held / Math.max(1, capacityAt(second))) * 1_000
    bucket = state.rate // what was decided a second ago
    state = nextState(
      state,
      { listeners, committedPerSecond: committed, heldMessages: held, window: WINDOW, oldestHeldMs },
      limits,
    )
    const queue = waiting - held
    moments.push({ second, rate: state.rate, admitted, committed, queue, phase: state.phase })
  }
  return moments
}

const during = (moments: Moment[], from: number, to: number) => moments.slice(from, to)
const average = (moments: Moment[], of: 'committed' | 'rate') =>
  moments.reduce((sum, moment) => sum + moment[of], 0) / moments.length
const largest = (moments: Moment[]) => Math.max(...moments.map(({ queue }) => queue))

it('leaves a store alone that keeps up', () => {
  const moments = simulate(60, () => 12_000)
  expect(moments.every(({ rate, phase }) => rate === 8_000 && phase === 'full')).toBe(true)
})

it.each([
  ['a quarter', 2_000],
  ['a half', 4_000],
  ['an eighth', 1_000],
])('slows the devices to a store that is slowed to %s for 60 s, and is back within 10 s', (_name, slow) => {
  const moments = simulate(120, (second) => (second >= 20 && second < 80 ? slow : 8_500))
  const slowed = during(moments, 30, 80)
  expect(average(slowed, 'committed')).toBeGreaterThan(slow * 0.85) // the store is not left idle
  expect(largest(moments)).toBeLessThan(30_000) // four seconds at the full rate; emqx.conf has room for 500,000 a session
  expect(largest(during(moments, 40, 80))).toBeLessThan(15_000)
  expect(moments.slice(90).every(({ rate }) => rate >= 7_200)).toBe(true)
  expect(average(during(moments, 90, 120), 'committed')).toBeGreaterThan(7_200)
})

it('without it, the same store would have the broker queue without an end', () => {
  expect((8_000 - 2_000) * 60).toBeGreaterThan(30_000 * 10)
})

it('goes down to the floor while there is no listener, and is back within 10 s of the first one', () => {
  const moments = simulate(
    110,
    () => 12_000,
    (second) => (second >= 10 && second < 70 ? 0 : 2),
  )
  expect(moments[16]?.rate).toBe(500)
  expect(largest(moments)).toBeLessThan(8_000 + 8_000 + 4_000 + 2_000 + 1_000 + 60 * 500)
  expect(moments[80]?.rate).toBeGreaterThanOrEqual(7_200)
  expect(moments.at(-1)).toMatchObject({ rate: 8_000, queue: 0, phase: 'full' })
})

it('goes down to the floor while nothing is committed, and is back within 10 s', () => {
  const moments = simulate(120, (second) => (second >= 10 && second < 70 ? 0 : 12_000))
  expect(moments[18]?.rate).toBe(500)
  expect(moments[80]?.rate).toBeGreaterThanOrEqual(7_200)
})

it('never changes by more than a factor of two or 32 % of the maximum in a second, nor leaves its bounds', () => {
  let random = 1
  const next = () => {
    random = (random * 48_271) % 2_147_483_647
    return random / 2_147_483_647
  }
  let state = initialState(limits.maximum, limits)
  for (let i = 0; i < 2_000; i += 1) {
    const before = state.rate
    state = nextState(
      state,
      {
        listeners: next() < 0.1 ? 0 : 2,
        committedPerSecond: next() * 12_000,
        heldMessages: next() * WINDOW,
        window: WINDOW,
        oldestHeldMs: next() * 2_000,
      },
      limits,
    )
    expect(state.rate).toBeGreaterThanOrEqual(Math.max(500, before / 2))
    expect(state.rate).toBeLessThanOrEqual(Math.min(8_000, Math.max(before * 2, before + 2_560) + 1))
  }
})

it('does not swing in a store that is a little too slow: it stays within a third of what can be done', () => {
  const moments = during(
    simulate(200, () => 6_000),
    60,
    200,
  )
  expect(Math.min(...moments.map(({ rate }) => rate))).toBeGreaterThan(4_000)
  expect(average(moments, 'committed')).toBeGreaterThan(6_000 * 0.9)
  expect(largest(moments)).toBeLessThan(12_000)
})
