import { meanRate, returnedAfterMs } from './recovery'

/** 500 ms each, at 8,000/s until 10 s, 1,000/s until 20 s, then 4,000/s for 3 s and 8,000/s again. */
const moments = Array.from({ length: 60 }, (_, n) => {
  const rate = n < 20 ? 8_000 : n < 40 ? 1_000 : n < 46 ? 4_000 : 8_000
  return { at: n * 500, count: rate / 2 }
})

it('a rate is what happened in the time between', () => {
  expect(meanRate(moments, 0, 10_000)).toBe(8_000)
  expect(meanRate(moments, 10_000, 20_000)).toBe(1_000)
  expect(meanRate(moments, 15_000, 15_000)).toBe(0)
})

it('a rate is back at the end of the first two seconds that have it', () => {
  expect(returnedAfterMs(moments, { from: 20_000, to: 30_000, rate: 7_200 })).toBe(5_000)
  expect(returnedAfterMs(moments, { from: 20_000, to: 30_000, rate: 3_600 })).toBe(2_000)
})

it('a rate that does not come back is not called back', () => {
  expect(returnedAfterMs(moments, { from: 20_000, to: 24_000, rate: 7_200 })).toBe(-1)
})
