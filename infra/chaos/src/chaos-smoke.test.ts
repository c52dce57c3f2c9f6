import { CHAOS_CASES } from './chaos-cases'
import { ChaosRun } from './chaos-run'

/** One case of `npm run chaos`, small: the whole stack, 25 devices, 500 messages a second for 10 s. */
it('loses nothing that was acknowledged and stores nothing twice when a listener and api are killed', async () => {
  const run = await ChaosRun.start({ seconds: 10, rate: 500, devices: 25 })
  try {
    const killed = CHAOS_CASES.find(({ name }) => name === 'kill-listener-and-api')
    const result = await run.run(killed!)
    expect(result).toMatchObject({ missing: 0, duplicates: 0, strangers: 0, deadLetters: 0 })
    expect(result.acknowledged).toBeGreaterThan(4_000)
    expect(result.committed).toBeGreaterThanOrEqual(result.acknowledged)
  } finally {
    await run.stop()
  }
}, 300_000)
