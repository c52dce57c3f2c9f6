import { AdmissionJournal, type NotedDecision, type NotedQuestion } from './admission-journal'

function refuse(journal: AdmissionJournal, given: Partial<NotedDecision & NotedQuestion> = {}): void {
  const { topic = 'a', clientId = 'd1', peer = '10.0.0.1', ...decision } = given
  journal.note(
    'publish',
    { result: 'deny', reason: 'no_rule', className: 'device', subjectId: 'd1', ...decision },
    { clientId, peer, topic },
  )
}

it('puts together what is alike, under the time of the first', () => {
  let now = 1_000
  const journal = new AdmissionJournal({ mostLines: 10, now: () => now })
  refuse(journal)
  now = 2_000
  refuse(journal)
  refuse(journal, { topic: 'b' })
  expect(journal.take(10)).toEqual([
    expect.objectContaining({ topic: 'a', count: 2, atMs: 1_000 }),
    expect.objectContaining({ topic: 'b', count: 1, atMs: 2_000 }),
  ])
  expect(journal.size).toBe(0)
})

it('gives the oldest lines first', () => {
  const journal = new AdmissionJournal()
  for (let i = 0; i < 5; i++) refuse(journal, { topic: `t${i}` })
  expect(journal.take(2).map(({ topic }) => topic)).toEqual(['t0', 't1'])
  expect(journal.take(9).map(({ topic }) => topic)).toEqual(['t2', 't3', 't4'])
})

it('keeps counting when there are too many to keep each, in a memory that does not grow', () => {
  const journal = new AdmissionJournal({ mostLines: 100 })
  for (let i = 0; i < 100_000; i++) refuse(journal, { clientId: `client-${i}`, topic: `t${i}` })
  expect(journal.size).toBe(101)
  expect(journal.withoutParticulars).toBe(99_900)
  const lines = journal.take(1_000)
  expect(lines.reduce((sum, { count }) => sum + count, 0)).toBe(100_000)
  expect(lines.at(-1)).toMatchObject({ reason: 'no_rule', className: 'device', count: 99_900 })
  expect(lines.at(-1)?.clientId).toBeUndefined()
})

it('does not take one thing for another that is written alike', () => {
  const journal = new AdmissionJournal()
  refuse(journal, { subjectId: 'a', serial: undefined })
  refuse(journal, { subjectId: undefined, serial: 'a' })
  refuse(journal, { clientId: 'x\ny', peer: 'z' })
  refuse(journal, { clientId: 'x', peer: 'y\nz' })
  expect(journal.size).toBe(4)
})
