import { until } from '@ares/chassis/testing'
import { Recurring } from './recurring'

let runs = 0
let end: () => void = () => undefined
const failures: unknown[] = []
const slow = () => {
  runs += 1
  return new Promise<void>((resolve) => {
    end = resolve
  })
}
beforeEach(() => {
  runs = 0
  failures.length = 0
})

it('works again and again, one run at a time, and stops when the last one has ended', async () => {
  const recurring = new Recurring(slow, (error) => failures.push(error))
  recurring.start(1)
  await until(() => runs === 1)
  const joined = recurring.run()
  end()
  await joined
  await until(() => runs === 2)
  let stopped = false
  const stopping = recurring.stop().then(() => {
    stopped = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  expect(stopped).toBe(false)
  end()
  await stopping
  expect(runs).toBe(2)
})

it('tells of a run that failed, and goes on', async () => {
  const recurring = new Recurring(
    async () => {
      runs += 1
      throw new Error(`run ${runs}`)
    },
    (error) => failures.push(error),
  )
  await recurring.run()
  recurring.start(1)
  await until(() => failures.length >= 3)
  await recurring.stop()
  expect(failures.slice(0, 3)).toEqual([new Error('run 1'), new Error('run 2'), new Error('run 3')])
})
