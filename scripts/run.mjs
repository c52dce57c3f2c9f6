#!/usr/bin/env node
// Runs a TypeScript entry of the workspace from its source:   node scripts/run.mjs FILE.ts [arguments]
// tsx compiles on load; the condition `source` makes `@ares/*` resolve to src/ instead of dist/.
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const [entry, ...args] = process.argv.slice(2)
let tsx
try {
  tsx = createRequire(join(root, 'package.json')).resolve('tsx')
} catch {
  console.error('The dependencies are not installed. Run: node scripts/pnpm.mjs install')
  process.exit(1)
}
const child = spawn(process.execPath, ['--conditions=source', '--import', tsx, join(root, entry), ...args], {
  stdio: 'inherit',
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)))
