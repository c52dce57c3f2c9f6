#!/usr/bin/env node
// Fails when what `pnpm -r generate` writes differs from what is committed.
import { execFileSync } from 'node:child_process'

const changed = execFileSync('git', ['status', '--porcelain', '--', 'proto/src/gen'], { encoding: 'utf8' }).trim()
if (changed && process.env.CI) {
  console.error(`The generated code is stale. Run "npm run generate" and commit:\n${changed}`)
  process.exit(1)
}
