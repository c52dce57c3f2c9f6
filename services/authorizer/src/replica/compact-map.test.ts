import { CompactMap } from './compact-map'

describe('a compact map', () => {
  it('holds what a Map holds through any mix of setting, changing and removing', () => {
    const map = new CompactMap()
    const model = new Map<string, string>()
    let state = 7
    const random = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return (state >>> 8) % below
    }
    const wrong: string[] = []
    for (let step = 0; step < 60_000; step++) {
      const key = `k${random(4_000)}`
      if (random(3) === 0) {
        if (map.delete(key) !== model.delete(key)) wrong.push(key)
      } else {
        const value = 'v'.repeat(random(60)) + step
        map.set(key, Buffer.from(value))
        model.set(key, value)
      }
    }
    expect(map.size).toBe(model.size)
    const visited = new Map<string, string>()
    map.forEach((key, value) => void visited.set(key, value.toString()))
    expect(visited).toEqual(model)
    for (let i = 0; i < 4_000; i++) if (map.get(`k${i}`)?.toString() !== model.get(`k${i}`)) wrong.push(`k${i}`)
    expect(wrong).toEqual([])
  })

  it('lets a visitor delete what it is shown', () => {
    const map = new CompactMap()
    for (let i = 0; i < 5_000; i++) map.set(`k${i}`, Buffer.from([i & 1]))
    map.forEach((key, value) => {
      if (value[0] === 1) map.delete(key)
    })
    expect(map.size).toBe(2_500)
    expect([map.has('k1'), map.has('k2')]).toEqual([false, true])
  })

  it('uses the place of removed records again', () => {
    const map = new CompactMap()
    for (let i = 0; i < 1_000; i++) map.set(`device-${i}`, Buffer.alloc(40))
    const before = map.bytes
    for (let round = 0; round < 100; round++) {
      for (let i = 0; i < 1_000; i++) map.set(`device-${i}`, Buffer.alloc(40 + (round % 2) * 20))
    }
    expect(map.bytes).toBe(before)
  })

  it('tells keys apart that share a beginning or a length', () => {
    const map = new CompactMap()
    map.set('a', Buffer.from('1'))
    map.set('ab', Buffer.from('2'))
    expect(map.get('a')?.toString()).toBe('1')
    expect(map.get('ab')?.toString()).toBe('2')
    expect(map.get('b')).toBeUndefined()
    expect(map.get('')).toBeUndefined()
    expect(map.get('ā')).toBeUndefined()
  })

  it('refuses keys and values that are too long', () => {
    const map = new CompactMap()
    expect(() => map.set('x'.repeat(256), Buffer.alloc(1))).toThrow(RangeError)
    expect(() => map.set('x', Buffer.alloc(65_536))).toThrow(RangeError)
    map.set('x'.repeat(255), Buffer.alloc(65_535, 7))
    expect(map.get('x'.repeat(255))).toEqual(Buffer.alloc(65_535, 7))
  })
})
