// Preloaded into listener and api by bench:ingest --profile DIR: SIGUSR2 begins a CPU profile, the next one writes it.
// (Node does not take --cpu-prof from NODE_OPTIONS, and would profile the start as well.)
const { writeFileSync } = require('node:fs')
const { Session } = require('node:inspector')
const { basename, dirname, join } = require('node:path')

const session = new Session()
session.connect()
let running = false
process.on('SIGUSR2', () => {
  if (!running) {
    session.post('Profiler.enable')
    session.post('Profiler.start')
  } else {
    session.post('Profiler.stop', (error, answer) => {
      if (error) return
      const part = basename(dirname(dirname(process.argv[1] ?? 'node')))
      const name = `${part}-${process.pid}-${Date.now()}.cpuprofile`
      writeFileSync(join(process.env.ARES_BENCH_PROFILE_DIR, name), JSON.stringify(answer.profile))
    })
  }
  running = !running
})
