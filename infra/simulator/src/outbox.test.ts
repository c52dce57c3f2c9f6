import { Outbox } from './outbox'

const report = (sequence: number) => ({ sequence })

describe('Outbox', () => {
  it('keeps a report after the broker’s PUBACK, until its receipt', () => {
    const outbox = new Outbox()
    outbox.add(report(1))
    expect(outbox.take()).toEqual({ sequence: 1 })
    outbox.sent(1, 0)
    expect(outbox.size).toBe(1)
    expect(outbox.confirmed(1)).toBe(true)
    expect(outbox.size).toBe(0)
    expect(outbox.confirmed(1)).toBe(false)
  })

  it('sends again what waits for its receipt after a reconnect, but not what is still on its way', () => {
    const outbox = new Outbox()
    for (const sequence of [1, 2]) outbox.add(report(sequence))
    outbox.take()
    outbox.take()
    outbox.sent(1, 0)
    outbox.reconnected()
    expect(outbox.take()).toEqual({ sequence: 1 })
    expect(outbox.take()).toBeUndefined()
  })

  it('sends again after 5 s without a receipt, then after 10 s', () => {
    const outbox = new Outbox()
    outbox.add(report(1))
    outbox.take()
    outbox.sent(1, 0)
    expect(outbox.overdue(4_999)).toBe(0)
    expect(outbox.overdue(5_000)).toBe(1)
    outbox.take()
    outbox.sent(1, 5_000)
    expect(outbox.overdue(14_999)).toBe(0)
    expect(outbox.overdue(15_000)).toBe(1)
  })

  it('has at most as many in flight as its window, and goes on after a receipt', () => {
    const outbox = new Outbox({ window: 2 })
    for (const sequence of [1, 2, 3]) outbox.add(report(sequence))
    expect([outbox.take(), outbox.take(), outbox.take()].map((r) => r?.sequence)).toEqual([1, 2, undefined])
    outbox.confirmed(2)
    expect(outbox.take()).toEqual({ sequence: 3 })
  })

  it('gives up the oldest queued report when it is full, and counts it', () => {
    const outbox = new Outbox({ capacity: 2, window: 1 })
    outbox.add(report(1))
    outbox.take()
    outbox.add(report(2))
    outbox.add(report(3))
    expect(outbox.dropped).toBe(1)
    outbox.confirmed(1)
    expect(outbox.take()).toEqual({ sequence: 3 })
  })
})
