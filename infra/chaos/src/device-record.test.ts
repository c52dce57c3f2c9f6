import type { SentReport } from '@ares/bench'
import { DeviceRecord } from './device-record'

const report = (sequence: number): SentReport => ({ sequence, component: 0, capturedAt: sequence, payload: '' })
const sequences = (reports: readonly SentReport[]) => reports.map(({ sequence }) => sequence)

it('is done with a report at its PUBACK where the broker lives', () => {
  const record = new DeviceRecord('puback', 32)
  record.add(report(1))
  expect(sequences(record.take(0))).toEqual([1])
  record.acknowledged(1)
  expect(record.unfinished).toBe(0)
  expect(record.flat()).toEqual([1, 0, 1, 1])
})

it('keeps a report until its receipt where the broker may die, and sends it again after 5 s', () => {
  const record = new DeviceRecord('receipt', 32)
  record.add(report(1))
  record.take(0)
  record.acknowledged(1)
  record.overdue(5_000)
  expect(record.take(5_000)).toEqual([])
  record.overdue(5_001)
  expect(sequences(record.take(5_001))).toEqual([1])
  record.receipted(1)
  expect(record.unfinished).toBe(0)
})

it('sends what is open again after a reconnect, before anything new', () => {
  const record = new DeviceRecord('puback', 32)
  for (const sequence of [1, 2, 3]) record.add(report(sequence))
  record.take(0)
  record.acknowledged(2)
  record.add(report(4))
  record.reconnected()
  expect(sequences(record.take(1))).toEqual([1, 3, 4])
})

it('has no more in flight than its window', () => {
  const record = new DeviceRecord('receipt', 2)
  for (const sequence of [1, 2, 3]) record.add(report(sequence))
  expect(sequences(record.take(0))).toEqual([1, 2])
  record.acknowledged(1)
  expect(record.take(0)).toEqual([])
  record.receipted(1)
  expect(sequences(record.take(0))).toEqual([3])
})

it('takes the receipt of a report that is queued to be sent again', () => {
  const record = new DeviceRecord('receipt', 2)
  record.add(report(1))
  record.take(0)
  record.reconnected()
  record.receipted(1)
  expect(record.take(0)).toEqual([])
  expect(record.unfinished).toBe(0)
})
