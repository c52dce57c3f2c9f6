import { rmSync } from 'node:fs'
import './global-setup'

/** Stops the PostgreSQL of the jest run and removes all it wrote. */
export default async function teardown(): Promise<void> {
  const server = globalThis.aresTestServer
  if (!server) return
  server.postgres.kill('SIGQUIT') // no checkpoint: its files go now
  await server.postgres.exited
  rmSync(server.dir, { recursive: true, force: true })
}
