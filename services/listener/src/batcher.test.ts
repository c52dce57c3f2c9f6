import { until } from '@ares/chassis/testing'
import { type Batch, Batcher, type BatchLimits, type Settleable } from './batcher'

const LIMITS: BatchLimits = {
  maxItems: 3,
  maxBytes: 100,
  maxAgeMs: 15,
  maxInFlight: 2,
  retryFirstMs: 5,
  retryMaxMs: 20,
}

interface Item extends Settleable {
  readonly name: string
}

/** A store whose commits the test decides, and what was settled in which order. */
class Bench {
  readonly sent: Array<{ id: string; names: string[] }> = []
  readonly settled: string[] = []
  readonly retried: string[] = []
  running = 0
  mostRunning = 0
  commit: (batch: Batch<Item>) => Promise<void> = async () => undefined
  condemn: (item: Item) => Item | 'elsewhere' | 'keep' = () => 'keep'
  readonly batcher: Batcher<Item>

  constructor(limits: Partial<BatchLimits> = {}) {
    this.batcher = new Batcher<Item>(
      { ...LIMITS, ...limits },
      {
        commit: async (batch) => {
          this.sent.push({ id: batch.id, names: batch.items.map((item) => item.name) })
          this.running++
          this.mostRunning = Math.max(this.mostRunning, this.running)
          try {
            await this.commit(batch)
          } finally {
            this.running--
          }
          return undefined
        },
        failureOf: (error) => ((error as Error).message === 'invalid' ? 'invalid' : 'try_again'),
        condemn: (item) => this.condemn(item),
        onCommitted: () => undefined,
        onRetry: (_error, batch) => this.retried.push(batch.id),
      },
    )
  }

  add(...names: string[]): void {
    for (const name of names) this.batcher.add(this.item(name))
  }

  item(name: string, bytes = 1): Item {
    return { name, bytes, settle: () => this.settled.push(name) }
  }
}

it('sends a batch when it has enough items', async () => {
  const bench = new Bench({ maxAgeMs: 10_000 })
  bench.add('a', 'b', 'c', 'd')
  await until(() => bench.settled.length === 3, 'three are settled')
  expect(bench.sent.map((batch) => batch.names)).toEqual([['a', 'b', 'c']])
  bench.batcher.stop()
})

it('sends a batch when it has enough bytes, and never more than that, except for one item that is larger', async () => {
  const bench = new Bench({ maxItems: 100, maxAgeMs: 10_000 })
  for (const bytes of [60, 60, 250]) bench.batcher.add(bench.item(String(bytes), bytes))
  await bench.batcher.drain()
  expect(bench.sent.map((batch) => batch.names)).toEqual([['60'], ['60'], ['250']])
})

it('sends a batch when its first item has waited long enough', async () => {
  const bench = new Bench()
  bench.add('a')
  expect(bench.sent).toHaveLength(0)
  await until(() => bench.settled.length === 1, 'it is settled')
})

it('settles nothing before the commit', async () => {
  const bench = new Bench()
  let commit: () => void = () => undefined
  bench.commit = () =>
    new Promise((resolve) => {
      commit = resolve
    })
  bench.add('a', 'b', 'c')
  await until(() => bench.sent.length === 1, 'the batch is sent')
  expect(bench.settled).toEqual([])
  commit()
  await until(() => bench.settled.length === 3, 'all are settled')
})

it('has at most so many batches on their way, and fills the next one meanwhile', async () => {
  const bench = new Bench()
  const commits: Array<() => void> = []
  bench.commit = () => new Promise((resolve) => commits.push(resolve))
  bench.add('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')
  await new Promise((resolve) => setTimeout(resolve, 50))
  expect(bench.sent).toHaveLength(2)
  expect(bench.batcher.pending).toEqual({ open: 2, batchesInFlight: 2 })
  commits[1]?.()
  await until(() => bench.sent.length === 3, 'the next one is sent')
  for (const commit of commits) commit()
  await bench.batcher.drain()
  expect(bench.mostRunning).toBe(2)
})

it('keeps what one connection left behind, and not what several did', async () => {
  const bench = new Bench()
  const commits: Array<() => void> = []
  bench.commit = () => new Promise((resolve) => commits.push(resolve))
  bench.add('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h')
  bench.batcher.trim({ items: 2, bytes: 100 })
  expect(bench.batcher.pending).toEqual({ open: 2, batchesInFlight: 2 })
  bench.add('g', 'h')
  bench.batcher.trim({ items: 2, bytes: 100 })
  expect(bench.batcher.pending).toEqual({ open: 0, batchesInFlight: 2 })
  bench.batcher.add(bench.item('large', 101))
  bench.batcher.trim({ items: 2, bytes: 100 })
  expect(bench.batcher.pending).toEqual({ open: 0, batchesInFlight: 2 })
  for (const commit of commits) commit()
  await bench.batcher.drain()
  expect(bench.settled).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
})

it('sends a failed batch again under the same id, and settles it then', async () => {
  const bench = new Bench()
  let failures = 3
  bench.commit = async () => {
    if (failures-- > 0) throw new Error('away')
  }
  bench.add('a', 'b', 'c')
  await bench.batcher.drain()
  expect(new Set(bench.sent.map((batch) => batch.id)).size).toBe(1)
  expect(bench.retried).toHaveLength(3)
  expect(bench.settled).toEqual(['a', 'b', 'c'])
})

it('splits a batch that is invalid until the bad item stands alone, and sends that one as what it was condemned to', async () => {
  const bench = new Bench({ maxItems: 8 })
  bench.commit = async ({ items }) => {
    if (items.some((item) => item.name === 'bad')) throw new Error('invalid')
  }
  bench.condemn = (item) => ({ ...item, name: 'dead letter' })
  bench.add('a', 'b', 'c', 'bad', 'd', 'e', 'f', 'g')
  await bench.batcher.drain()
  expect([...bench.settled].sort()).toEqual(['a', 'b', 'bad', 'c', 'd', 'e', 'f', 'g'])
  expect(bench.sent.some((batch) => batch.names.join() === 'dead letter')).toBe(true)
})

it('leaves an item alone that another one has taken over', async () => {
  const bench = new Bench()
  const taken: string[] = []
  bench.commit = async () => {
    throw new Error('invalid')
  }
  bench.condemn = (item) => {
    taken.push(item.name)
    return 'elsewhere'
  }
  bench.add('a', 'b', 'c')
  await bench.batcher.drain()
  expect(taken).toEqual(['a', 'b', 'c'])
  expect(bench.settled).toEqual([])
})

it('holds an item that is refused in every form, and settles it when it is taken at last', async () => {
  const bench = new Bench()
  let refusals = 4
  bench.commit = async () => {
    if (refusals-- > 0) throw new Error('invalid')
  }
  bench.add('a')
  await bench.batcher.drain()
  expect(bench.settled).toEqual(['a'])
  expect(bench.retried.length).toBeGreaterThan(0)
})

it('gives batches more time when commits are slow, within a bound', async () => {
  const bench = new Bench()
  expect(bench.batcher.ageLimitMs).toBe(15)
  bench.commit = () => new Promise((resolve) => setTimeout(resolve, 80))
  bench.add('a', 'b', 'c')
  await bench.batcher.drain()
  expect(bench.batcher.ageLimitMs).toBeGreaterThan(30)
  expect(bench.batcher.ageLimitMs).toBeLessThanOrEqual(150)
})

it('settles nothing after it was stopped', async () => {
  const bench = new Bench()
  bench.commit = async () => {
    throw new Error('away')
  }
  bench.add('a', 'b', 'c')
  await until(() => bench.retried.length > 0, 'it is tried again')
  bench.batcher.stop()
  bench.commit = async () => undefined
  await new Promise((resolve) => setTimeout(resolve, 60))
  expect(bench.settled).toEqual([])
})
