import { DeviceBudget } from './device-budget'

let now = 0
const budget = () => new DeviceBudget({ ratePerSecond: 10, burst: 100, overMs: 30_000 }, () => now)
beforeEach(() => {
  now = 1_000_000
})

it('lets a device that was away send its backlog at once', () => {
  const tokens = budget()
  expect(Array.from({ length: 100 }, () => tokens.take('a', 1))).not.toContain(false)
  expect(tokens.take('a', 1)).toBe(false)
})

it('refuses everything for a while, then grants what was earned meanwhile', () => {
  const tokens = budget()
  tokens.take('a', 100)
  expect(tokens.take('a', 1)).toBe(false)
  now += 29_999
  expect(tokens.take('a', 1)).toBe(false)
  now += 1
  expect(tokens.take('a', 100)).toBe(true)
})

it('holds for each device alone', () => {
  const tokens = budget()
  tokens.take('a', 100)
  expect(tokens.take('a', 1)).toBe(false)
  expect(tokens.take('b', 1)).toBe(true)
})

it('grants a device in a loop its rate in the long run, not more', () => {
  const tokens = budget()
  let stored = 0
  for (let i = 0; i < 600 * 50; i += 1, now += 20) if (tokens.take('a', 1)) stored += 1
  expect(stored).toBeGreaterThan(600 * 10 * 0.3)
  expect(stored).toBeLessThanOrEqual(600 * 10 + 100)
})

it('gives back what was not stored', () => {
  const tokens = budget()
  tokens.take('a', 100)
  tokens.giveBack('a', 500)
  expect(tokens.take('a', 100)).toBe(true)
})

it('does not mind a clock that goes back', () => {
  const tokens = budget()
  tokens.take('a', 50)
  now -= 60_000
  expect(tokens.take('a', 50)).toBe(true)
  expect(tokens.take('a', 1)).toBe(false)
})
