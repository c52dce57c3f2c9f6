// Holds the contract against the last commit: `buf breaking` fails on a change that an old peer could not read.
import { spawnSync } from 'node:child_process'

const against = process.env.ARES_PROTO_BASE ?? 'HEAD~1'
const known = spawnSync('git', ['cat-file', '-e', `${against}:proto/buf.yaml`], { stdio: 'ignore' })
if (known.status !== 0) {
  console.log(`buf breaking: ${against} has no contract to compare with`)
  process.exit(0)
}
const result = spawnSync('buf', ['breaking', '--against', `../.git#ref=${against},subdir=proto`], { stdio: 'inherit' })
process.exit(result.status ?? 1)
