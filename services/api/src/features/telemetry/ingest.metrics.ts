import { type IngestResponse, Result } from '@ares/proto/telemetry/v1/telemetry'
import { Counter, Histogram, type Registry } from 'prom-client'

export type IngestMetrics = ReturnType<typeof createIngestMetrics>

/** What api counts of ingestion. */
export function createIngestMetrics(registry: Registry) {
  const registers = [registry]
  const messages = new Counter({
    name: 'ares_api_telemetry_messages_total',
    help: 'Telemetry messages by what became of them',
    labelNames: ['result'] as const,
    registers,
  })
  const deadLetters = new Counter({
    name: 'ares_api_dead_letters_total',
    help: 'Messages that became dead letters, by reason',
    labelNames: ['reason'] as const,
    registers,
  })
  const replayed = new Counter({
    name: 'ares_api_dead_letters_replayed_total',
    help: 'Dead letters that were replayed, by what became of them',
    labelNames: ['result'] as const,
    registers,
  })
  const batchMessages = new Histogram({
    name: 'ares_api_batch_messages',
    help: 'Messages in a committed batch',
    buckets: [1, 5, 20, 50, 100, 200, 350, 500, 1_000, 5_000],
    registers,
  })
  const commitSeconds = new Histogram({
    name: 'ares_api_commit_seconds',
    help: 'One transaction of ingestion, with its tries',
    buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20],
    registers,
  })
  return {
    replayed,
    /** Counts one committed batch. */
    observe({ results, refusals }: IngestResponse, tookMs: number): void {
      const counts = new Map<Result, number>()
      for (const result of results) counts.set(result, (counts.get(result) ?? 0) + 1)
      for (const [result, count] of counts) messages.inc({ result: NAMES[result] ?? 'unknown' }, count)
      for (const { reason } of refusals) deadLetters.inc({ reason: REASON.test(reason) ? reason : 'other' })
      batchMessages.observe(results.length)
      commitSeconds.observe(tookMs / 1_000)
    },
  }
}

const NAMES: Partial<Record<Result, string>> = {
  [Result.RESULT_COMMITTED]: 'committed',
  [Result.RESULT_DUPLICATE]: 'duplicate',
  [Result.RESULT_DEAD_LETTERED]: 'dead_lettered',
}

/** The words of the contract; whatever else came in is no label. */
const REASON = /^[a-z_]{1,32}$/
