import { status } from '@grpc/grpc-js'
import { Histogram, type Registry } from 'prom-client'

/** Observes a call when it ends. */
export type CallObserver = (method: string, code: status, startedAt: number) => void

/** `ares_grpc_server_seconds` or `ares_grpc_client_seconds`, by method and status; several clients share one. */
export function callMetrics(registry: Registry, side: 'server' | 'client'): CallObserver {
  const name = `ares_grpc_${side}_seconds`
  const existing = registry.getSingleMetric(name) as Histogram<'method' | 'code'> | undefined
  const histogram =
    existing ??
    new Histogram({
      name,
      help: `Duration of gRPC calls, seen by the ${side}`,
      labelNames: ['method', 'code'] as const,
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
      registers: [registry],
    })
  return (method, code, startedAt) =>
    histogram.observe({ method, code: status[code] }, (performance.now() - startedAt) / 1_000)
}
