import { ReconnectPace } from './reconnect-pace'

const limits = { firstMs: 100, maxMs: 1_000, stableAfterMs: 5_000 }

it('tries at once first, then less and less often', () => {
  const pace = new ReconnectPace(limits)
  const waits = Array.from({ length: 6 }, () => pace.next(0))
  const steps = [100, 200, 400, 800, 1_000, 1_000]
  waits.forEach((wait, index) => {
    expect(wait).toBeGreaterThanOrEqual(steps[index]! / 2)
    expect(wait).toBeLessThanOrEqual(steps[index]!)
  })
})

it('begins anew after a session that lasted', () => {
  const pace = new ReconnectPace(limits)
  for (let times = 0; times < 5; times++) pace.next(0)
  pace.began(1_000)
  expect(pace.next(6_000)).toBeLessThanOrEqual(100)
})

it('goes on growing while sessions end after a moment', () => {
  const pace = new ReconnectPace(limits)
  for (let times = 0; times < 5; times++) {
    pace.began(1_000)
    pace.next(1_010)
  }
  expect(pace.next(2_000)).toBeGreaterThanOrEqual(500)
})
