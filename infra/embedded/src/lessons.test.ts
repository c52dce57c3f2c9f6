import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY } from './repository'

/** docs/lessons.md promises a test for each lesson: the tests it names must be there. */
const rows = readFileSync(join(REPOSITORY, 'docs/lessons.md'), 'utf8')
  .split('\n')
  .filter((line) => /^\| \d \|/.test(line))
  .map((line) => line.split(' | '))

it('lists nine lessons', () => {
  expect(rows.map(([number]) => number?.replace('| ', ''))).toEqual(['1', '2', '3', '4', '5', '6', '7', '8', '9'])
})

it.each(rows.map((row) => [row[0]?.replace('| ', ''), row[3] ?? '']))(
  'lesson %s names tests that exist',
  (_number, cell) => {
    const named = [...cell.matchAll(/`([^`]+\.test\.ts)`: ((?:"[^"]+"(?:, )?)+)/g)]
    expect(named.length).toBeGreaterThan(0)
    for (const [, file = '', names = ''] of named) {
      const source = readFileSync(join(REPOSITORY, file), 'utf8')
      for (const [, name = ''] of names.matchAll(/"([^"]+)"/g)) {
        // A name with an apostrophe stands in other quotes, or with it escaped.
        expect(source.replaceAll("\\'", "'")).toContain(name)
      }
    }
  },
)
