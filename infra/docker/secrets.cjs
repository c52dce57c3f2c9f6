// Makes what has to be secret and the same at every start: one random value per file, kept when it is there.
//   node secrets.cjs GID:FILE...      the file gets mode 0440 and the group GID, so that only its reader may read it
const { chmodSync, chownSync, existsSync, renameSync, writeFileSync } = require('node:fs')
const { randomBytes } = require('node:crypto')

for (const argument of process.argv.slice(2)) {
  const [gid, file] = argument.split(':')
  if (existsSync(file)) continue
  const fresh = `${file}.new`
  writeFileSync(fresh, randomBytes(24).toString('base64url'), { mode: 0o600, flush: true })
  chownSync(fresh, process.getuid(), Number(gid))
  chmodSync(fresh, 0o440)
  renameSync(fresh, file)
  console.log(`made ${file}`)
}
