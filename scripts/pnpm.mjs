#!/usr/bin/env node
// Runs the pinned pnpm with nothing but Node and npm installed:
//   node scripts/pnpm.mjs [--if-stale] <pnpm arguments>
// 1. a `pnpm` of the pinned major already on PATH is used as it is;
// 2. otherwise `npm exec` fetches the version pinned in package.json "packageManager".
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const pkg = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const pinned = /^pnpm@(\d+)\.(\d+)\.(\d+)/.exec(pkg.packageManager)
const [maj, min] = process.versions.node.split('.').map(Number)
if (maj < 20 || (maj === 20 && min < 19)) {
  console.error(`Node ${process.version} is too old: 20.19 or newer is needed.`)
  process.exit(1)
}
let args = process.argv.slice(2)
if (args[0] === '--if-stale') {
  args = args.slice(1)
  const stamp = join(root, 'node_modules/.modules.yaml')
  if (existsSync(stamp) && statSync(stamp).mtimeMs >= statSync(join(root, 'pnpm-lock.yaml')).mtimeMs) process.exit(0)
}
const shell = process.platform === 'win32'
const have = spawnSync('pnpm', ['--version'], { encoding: 'utf8', shell, cwd: '/' })
const useOwn = have.status === 0 && have.stdout.trim().split('.')[0] === pinned[1]
const [cmd, argv] = useOwn
  ? ['pnpm', args]
  : ['npm', ['exec', '--yes', `--package=${pinned[0]}`, '--', 'pnpm', ...args]]
const r = spawnSync(cmd, argv, { stdio: 'inherit', cwd: root, shell })
process.exit(r.status ?? 1)
