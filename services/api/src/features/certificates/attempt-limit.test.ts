import { DomainError } from '@ares/chassis'
import { AttemptLimit } from './attempt-limit'

const refused = () => Promise.reject(new DomainError('forbidden', 'refused', 'no'))
const away = () => Promise.reject(new DomainError('unavailable', 'away', 'later'))
const codeOf = (work: Promise<unknown>) => work.then(String, (error) => error.code)

it('stops an address after so many failures, and no other', async () => {
  const limit = new AttemptLimit(3)
  for (let n = 0; n < 3; n++) expect(await codeOf(limit.attempt('a', refused))).toBe('refused')
  expect(await codeOf(limit.attempt('a', async () => 1))).toBe('too_many_attempts')
  expect(await codeOf(limit.attempt('b', async () => 1))).toBe('1')
})

it('does not count successes, nor what is our own trouble', async () => {
  const limit = new AttemptLimit(1)
  for (let n = 0; n < 5; n++) expect(await limit.attempt('a', async () => n)).toBe(n)
  for (let n = 0; n < 5; n++) expect(await codeOf(limit.attempt('a', away))).toBe('away')
})

it('counts many at once before any of them ends', async () => {
  const limit = new AttemptLimit(2)
  const codes = await Promise.all(Array.from({ length: 4 }, () => codeOf(limit.attempt('a', refused))))
  expect(codes).toEqual(['refused', 'refused', 'too_many_attempts', 'too_many_attempts'])
})

it('bounds how many run at once', async () => {
  const limit = new AttemptLimit(60, 1)
  let end: () => void = () => {}
  const first = limit.attempt('a', () => new Promise<void>((resolve) => (end = resolve)))
  expect(await codeOf(limit.attempt('b', async () => 1))).toBe('too_busy')
  end()
  await first
  expect(await limit.attempt('b', async () => 1)).toBe(1)
})
