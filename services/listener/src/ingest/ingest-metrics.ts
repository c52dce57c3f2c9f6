import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

export type IngestMetrics = ReturnType<typeof createIngestMetrics>

/** What the listener counts, see docs/operations. */
export function createIngestMetrics(registry: Registry) {
  const registers = [registry]
  return {
    messages: new Counter({
      name: 'ares_listener_messages_total',
      help: 'Messages received, by kind and by what was read in them',
      labelNames: ['kind', 'read'] as const,
      registers,
    }),
    results: new Counter({
      name: 'ares_listener_results_total',
      help: 'Telemetry messages by what became of them in the store',
      labelNames: ['result'] as const,
      registers,
    }),
    deadLetters: new Counter({
      name: 'ares_listener_dead_letters_total',
      help: 'Messages that became dead letters, by reason',
      labelNames: ['reason'] as const,
      registers,
    }),
    batchSize: new Histogram({
      name: 'ares_listener_batch_messages',
      help: 'Messages in a committed batch',
      labelNames: ['sink'] as const,
      buckets: [1, 5, 20, 50, 100, 200, 350, 500, 1_000],
      registers,
    }),
    commitSeconds: new Histogram({
      name: 'ares_listener_commit_seconds',
      help: 'From sending a batch to its commit',
      labelNames: ['sink'] as const,
      buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    }),
    retries: new Counter({
      name: 'ares_listener_retries_total',
      help: 'Batches that failed and are sent again',
      labelNames: ['sink'] as const,
      registers,
    }),
    renewals: new Counter({
      name: 'ares_listener_renewals_total',
      help: 'Requests of devices for a new certificate, by what they were told: issued, or the code of the error',
      labelNames: ['result'] as const,
      registers,
    }),
    reconnects: new Counter({
      name: 'ares_listener_reconnects_total',
      help: 'Tries to reconnect to the broker',
      registers,
    }),
    /** Has the gauges of what is held ask `held` each time somebody reads the metrics. */
    observeHeld(held: () => { readonly messages: number; readonly bytes: number }) {
      new Gauge({
        name: 'ares_listener_held_messages',
        help: 'Messages received and not yet committed',
        registers,
        collect() {
          this.set(held().messages)
        },
      })
      new Gauge({
        name: 'ares_listener_held_bytes',
        help: 'Payload of the messages received and not yet committed',
        registers,
        collect() {
          this.set(held().bytes)
        },
      })
    },
  }
}
