import { allows, contains, type Levels, levelsOf, publishedLevels, subscribedLevels } from './topic-filter'

/** MQTT's own rule for a filter and a topic name, written down anew: the reference of the property test. */
function matches(filter: Levels, topic: Levels): boolean {
  if (topic[0]?.startsWith('$') && (filter[0] === '+' || filter[0] === '#')) return false
  for (const [i, level] of filter.entries()) {
    if (level === '#') return true
    if (i >= topic.length) return false
    if (level !== '+' && level !== topic[i]) return false
  }
  return filter.length === topic.length
}

/** How EMQX 5.8 holds a filter against a rule: word by word, as if it were a topic. */
export function emqxMatches(rule: Levels, filter: Levels): boolean {
  if (filter[0]?.startsWith('$') && (rule[0] === '+' || rule[0] === '#')) return false
  for (const [i, level] of rule.entries()) {
    if (level === '#') return true
    if (i >= filter.length) return false
    if (level !== '+' && level !== filter[i]) return false
  }
  return rule.length === filter.length
}

function sequences(alphabet: readonly string[], longest: number): string[][] {
  let grown: string[][] = [[]]
  const all: string[][] = []
  for (let length = 1; length <= longest; length++) {
    grown = grown.flatMap((start) => alphabet.map((level) => [...start, level]))
    all.push(...grown)
  }
  return all
}

describe('containment', () => {
  it('agrees with brute force over every pair of filters of up to four levels', () => {
    const names = ['', 'a', 'b', '$s']
    const filters = sequences([...names, '+', '#'], 4).filter(
      (levels) => !levels.slice(0, -1).includes('#') && levels.join('/') !== '',
    )
    // One level and one name more than any filter has: enough to tell any two filters apart.
    const topics = sequences([...names, 'z'], 5).filter((levels) => levels.join('/') !== '')
    const words = Math.ceil(topics.length / 32)
    const matched = filters.map((filter) => {
      const bits = new Uint32Array(words)
      topics.forEach((topic, i) => {
        if (matches(filter, topic)) bits[i >>> 5]! |= 1 << (i & 31)
      })
      return bits
    })
    let cases = 0
    const wrong: string[] = []
    filters.forEach((rule, r) => {
      filters.forEach((filter, f) => {
        const within = matched[f]!.every((word, i) => (word & ~matched[r]![i]!) === 0)
        cases += 1
        if (contains(rule, filter) !== within) wrong.push(`${rule.join('/')} contains ${filter.join('/')}: ${within}`)
      })
    })
    expect(wrong).toEqual([])
    expect(cases).toBeGreaterThan(200_000)
  })

  it.each([
    ['dev/1/+', 'dev/1/#'],
    ['+', '#'],
    ['dev/+/state', 'dev/#'],
    ['dev/+', 'dev/#'],
    ['+/+', '+/#'],
  ])('rule %s does not allow %s', (rule, filter) => {
    expect(allows(rule, filter)).toBe(false)
  })

  it.each([
    ['dev/1/+', 'dev/1/#'],
    ['+', '#'],
    ['+/+', '+/#'],
    ['dev/+', 'dev/#'],
  ])("EMQX's matcher lets %s be taken for leave to subscribe to %s, ours does not", (rule, filter) => {
    expect(emqxMatches(rule.split('/'), filter.split('/'))).toBe(true)
    expect(allows(rule, filter)).toBe(false)
  })

  it.each([
    ['dev/1/+', 'dev/1/+'],
    ['dev/1/+', 'dev/1/x'],
    ['dev/1/+', 'dev/1/'],
    ['dev/1/#', 'dev/1/#'],
    ['dev/1/#', 'dev/1'],
    ['dev/1/#', 'dev/1/+/x/#'],
    ['#', '#'],
    ['#', '+/#'],
    ['+/#', '#'],
    ['/#', '/a'],
    ['/+', '/'],
    ['+/+', '/'],
    ['$SYS/#', '$SYS/brokers'],
    ['Gerät/+', 'Gerät/7'],
    ['a/+', '$share/g/a/+'],
    ['a/+', '$queue/a/x'],
    ['a/+', '$exclusive/a/x'],
    ['a/+', '$delayed/15/a/x'],
  ])('rule %s allows %s', (rule, filter) => {
    expect(allows(rule, filter)).toBe(true)
  })

  it.each([
    ['#', '$SYS/#'],
    ['#', '$SYS'],
    ['+/x', '$SYS/x'],
    ['#', '$share'],
    ['#', '$share/g'],
    ['#', '$share/g/'],
    ['#', '$share/+/a'],
    ['#', '$share//a'],
    ['#', '$share/g/$share/h/a'],
    ['#', '$queue/$exclusive/a'],
    ['#', '$queue/'],
    ['#', '$exclusive/$SYS/a'],
    ['#', '$delayed/x/a'],
    ['#', '$delayed/15/'],
    ['#', '$share/g/$SYS/#'],
    ['a', '/a'],
    ['/a', 'a'],
    ['a', 'a/'],
    ['a/+', 'a'],
    ['Gerät', 'GerÄt'],
    ['é', 'e\u0301'],
  ])('rule %s does not allow %s', (rule, filter) => {
    expect(allows(rule, filter)).toBe(false)
  })
})

describe('a filter', () => {
  it.each(['', 'a+', 'a/b#', '#/a', 'a/#/b', '++', 'a\u0000b', 'a/\ud800', '\udc00'])(
    'is not well formed as %j',
    (text) => {
      expect(levelsOf(text)).toBeUndefined()
      expect(allows('#', text)).toBe(false)
      expect(allows(text, 'a')).toBe(false)
    },
  )

  it('may have 65,535 bytes and not one more, whatever its characters', () => {
    expect(allows('#', 'x'.repeat(65_535))).toBe(true)
    expect(allows('#', 'x'.repeat(65_536))).toBe(false)
    expect(allows('#', `x${'é'.repeat(32_767)}`)).toBe(true)
    expect(allows('#', 'é'.repeat(32_768))).toBe(false)
  })

  it('may have 128 levels and not one more', () => {
    expect(allows('#', Array(128).fill('x').join('/'))).toBe(true)
    expect(allows('#', Array(129).fill('x').join('/'))).toBe(false)
    expect(allows('#', '/'.repeat(65_535))).toBe(false)
    const deep = [...Array(127).fill('+'), '#'].join('/')
    expect(allows(deep, deep)).toBe(true)
  })

  it('keeps characters outside the basic plane', () => {
    expect(allows('a/😀', 'a/😀')).toBe(true)
    expect(allows('a/😀', 'a/😁')).toBe(false)
  })
})

describe('a topic to publish on', () => {
  it('has no wildcard', () => {
    expect(publishedLevels('a/+')).toBeUndefined()
    expect(publishedLevels('#')).toBeUndefined()
    expect(publishedLevels('a/b')).toEqual(['a', 'b'])
  })

  it('is the one behind $delayed, and the prefixes of subscriptions are not taken off', () => {
    expect(publishedLevels('$delayed/5/a/b')).toEqual(['a', 'b'])
    expect(publishedLevels('$share/g/a')).toEqual(['$share', 'g', 'a'])
    expect(subscribedLevels('$share/g/a')).toEqual(['a'])
  })
})
