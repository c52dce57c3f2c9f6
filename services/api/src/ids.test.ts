import { newId } from './ids'

describe('newId', () => {
  it('is a UUID of version 7 in lower case', () => {
    for (let i = 0; i < 100; i++) {
      expect(newId()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    }
  })

  it('sorts by age', () => {
    const ids = [1_000, 2_000, 1_764_000_000_000, 1_764_000_000_001].map(newId)
    expect([...ids].sort()).toEqual(ids)
  })
})
