import { createServer } from 'node:net'

/**
 * Ports that are looked up now and bound later lie below what systems give to outgoing connections (Linux from 32,768, others
 * from 49,152). Within that range any connection that somebody opens meanwhile may get the very port, and a server that comes
 * back after a kill finds it taken.
 */
const FIRST = 15_000
const LAST = 32_767

/** Each process begins elsewhere, so that two that look at the same time do not find the same. */
let candidate = FIRST + ((process.pid * 101) % (LAST - FIRST))

/** A port that is free on the loopback address right now. @throws when there is none */
export async function freePort(): Promise<number> {
  for (let tries = FIRST; tries <= LAST; tries++) {
    candidate = candidate < LAST ? candidate + 1 : FIRST
    const port = candidate
    if (await isFree(port)) return port
  }
  throw new Error(`no port from ${FIRST} to ${LAST} is free`)
}

/** So many different free ports. */
export function freePorts(count: number): Promise<number[]> {
  return Promise.all(Array.from({ length: count }, freePort))
}

/** True when nobody listens there and we may. */
export function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
