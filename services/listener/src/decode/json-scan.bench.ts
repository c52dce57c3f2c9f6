import { parseJson } from './json-scan'

/**
 * What the checks of parseJson cost beside JSON.parse alone.
 * node --conditions=source --import tsx services/listener/src/decode/json-scan.bench.ts
 */
const report = Buffer.from(
  JSON.stringify({
    sequence: 1042,
    component: 'dht22-1',
    timestamp: '2025-12-08T09:00:00.000Z',
    metrics: { temperature: 25.5, humidity: 45.1, heater_on: true, pressure: 1013.25, mode: 'eco' },
  }),
)
const ROUNDS = 500_000

function microsecondsOf(parse: (payload: Buffer) => unknown): number {
  for (let round = 0; round < ROUNDS / 5; round++) parse(report)
  const startedAt = performance.now()
  for (let round = 0; round < ROUNDS; round++) parse(report)
  return ((performance.now() - startedAt) * 1_000) / ROUNDS
}

const plain = microsecondsOf((payload) => JSON.parse(payload.toString('utf8')))
const checked = microsecondsOf(parseJson)
process.stdout.write(
  `${report.length} bytes: JSON.parse ${plain.toFixed(2)} µs, with depth and duplicate keys ${checked.toFixed(2)} µs\n`,
)
