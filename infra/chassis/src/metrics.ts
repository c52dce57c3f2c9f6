import { collectDefaultMetrics, Registry } from 'prom-client'

/** A registry of its own for each service (tests run several in one process), with the metrics of the Node process. */
export function createMetrics(service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service })
  collectDefaultMetrics({ register: registry })
  return registry
}
