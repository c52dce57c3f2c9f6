#!/usr/bin/env node
// Runs a TypeScript entry of the workspace:   node scripts/run.mjs [--built] FILE.ts [arguments]
// From its source: tsx compiles on load, and the condition `source` makes `@ares/*` resolve to src/ instead of dist/.
// With --built: `npm run build` first, then what it made. Benchmarks do so, because that is what images hold.
import { spawn, spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const built = process.argv[2] === '--built'
const [entry, ...args] = process.argv.slice(built ? 3 : 2)
let tsx
try {
  tsx = createRequire(join(root, 'package.json')).resolve('tsx')
} catch {
  console.error('The dependencies are not installed. Run: node scripts/pnpm.mjs install')
  process.exit(1)
}
if (built) {
  console.error('Building what is run (npm run build); the first time takes a minute.')
  const { status, stdout, stderr } = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, encoding: 'utf8' })
  if (status !== 0) {
    console.error(`${stdout}${stderr}`)
    process.exit(status ?? 1)
  }
}
const program = built
  ? [join(root, entry.replace('/src/', '/dist/').replace(/\.ts$/, '.js'))]
  : ['--conditions=source', '--import', tsx, join(root, entry)]
const child = spawn(process.execPath, [...program, ...args], { stdio: 'inherit' })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)))
