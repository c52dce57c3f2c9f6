import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Step } from './revocations'

/** What the revocations count. */
export class RevocationMetrics {
  private readonly seconds: Histogram
  private readonly failures: Counter<'step'>

  /** @param unfinished how many are not finished now */
  constructor(metrics: Registry, unfinished: () => Promise<number>) {
    this.seconds = new Histogram({
      name: 'ares_revocation_seconds',
      help: 'From the written plan to the kick.',
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300],
      registers: [metrics],
    })
    this.failures = new Counter({
      name: 'ares_revocation_step_failures_total',
      help: 'Steps of revocations that failed and are tried again.',
      labelNames: ['step'],
      registers: [metrics],
    })
    new Gauge({
      name: 'ares_revocations_unfinished',
      help: 'Revocations with a step that is not done, the second kick included.',
      registers: [metrics],
      async collect() {
        // Without the database nobody knows.
        this.set(await unfinished().catch(() => Number.NaN))
      },
    })
  }

  tookEffect(milliseconds: number): void {
    this.seconds.observe(milliseconds / 1_000)
  }

  failed(step: Step): void {
    this.failures.inc({ step })
  }
}
