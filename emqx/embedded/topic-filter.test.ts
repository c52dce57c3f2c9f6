import { authorizedTopic, sharedFilter, TopicFilter } from './topic-filter'

describe('a topic filter', () => {
  test.each([
    ['a/b', 'a/b', true],
    ['a/b', 'a/b/c', false],
    ['a/+', 'a/b', true],
    ['a/+', 'a', false],
    ['a/+', 'a/', true],
    ['a/+', 'a/b/c', false],
    ['a/#', 'a', true],
    ['a/#', 'a/b/c', true],
    ['#', 'a/b', true],
    ['+/b', '/b', true],
    ['#', '$SYS/x', false],
    ['+/x', '$SYS/x', false],
    ['$SYS/#', '$SYS/x', true],
  ])('%s on %s: %p', (filter, topic, matches) => {
    expect(new TopicFilter(filter).matches(topic)).toBe(matches)
  })

  test('of a shared subscription has a group', () => {
    expect(sharedFilter('$share/g/a/+/b')).toEqual({ group: 'g', filter: 'a/+/b' })
    expect(sharedFilter('a/b')).toEqual({ group: undefined, filter: 'a/b' })
  })

  test.each([
    ['$share/g/t/+', 't/+'],
    ['$queue/t/1', 't/1'],
    ['$exclusive/t/9', 't/9'],
    ['$delayed/1/t/5', 't/5'],
    ['$SYS/x', '$SYS/x'],
  ])('%s is authorized as %s', (written, topic) => {
    expect(authorizedTopic(written)).toBe(topic)
  })
})
