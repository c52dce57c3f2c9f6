import { problemOf } from './problem'

it('a database that is away is a 503 that says so, and not an internal error', () => {
  for (const code of ['ECONNREFUSED', '57P01', 'P1001']) {
    const { status, code: told } = problemOf(Object.assign(new Error('no'), { code }), undefined)
    expect([status, told]).toEqual([503, 'database_unavailable'])
  }
  expect(problemOf(new Error('anything else'), undefined)).toMatchObject({ status: 500, code: 'internal' })
})
