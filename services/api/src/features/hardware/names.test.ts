import { newMetric, newSupportedComponent } from './hardware.schema'

it('a metric or component cannot have a name that a report could not carry', () => {
  for (const name of ['__proto__', '', ' a', 'a b', 'ü', 'x'.repeat(65)]) {
    expect([name, newMetric.safeParse({ name, kind: 'number' }).success]).toEqual([name, false])
    const component = newSupportedComponent.safeParse({ name, metrics: [{ name: 'a', kind: 'number' }] })
    expect([name, component.success]).toEqual([name, false])
  }
})

it('may be called like other members of objects: reports carry them as they are', () => {
  for (const name of ['constructor', 'toString', '_proto_', 'temperature.max']) {
    expect([name, newMetric.safeParse({ name, kind: 'number' }).success]).toEqual([name, true])
  }
})
