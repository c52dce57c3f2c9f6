import { spawn } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY } from './repository'

const API = join(REPOSITORY, 'services/api')

/** Generates api's database client from its schema, where that was not done yet: generated code is not in the repository. */
export async function generateDatabaseClient(): Promise<void> {
  const generated = join(API, 'src/generated/prisma/client.ts')
  const schema = join(API, 'prisma/schema.prisma')
  if (existsSync(generated) && statSync(generated).mtimeMs >= statSync(schema).mtimeMs) return
  const command = process.platform === 'win32' ? 'prisma.cmd' : 'prisma'
  // The engine is not needed for this, but the command insists on having one; any program will do.
  const env = { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1' }
  const child = spawn(join(API, 'node_modules/.bin', command), ['generate'], { cwd: API, env })
  let words = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (words += chunk.toString()))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  if (code !== 0) throw new Error(`prisma generate ended with ${code}: ${words.trim().slice(-2000)}`)
}
