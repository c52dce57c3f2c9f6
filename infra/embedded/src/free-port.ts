import { createServer, type Server } from 'node:net'

/** A port that is free on the loopback address right now. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1)
  return port as number
}

/** So many different free ports: all are held open until the last is found, or two could be the same. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, () => listen(0, '127.0.0.1')))
  const ports = servers.map(portOf)
  await Promise.all(servers.map(close))
  return ports
}

/** True when nobody listens there and we may. */
export async function isFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  try {
    await close(await listen(port, host))
    return true
  } catch {
    return false
  }
}

const listen = (port: number, host: string): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ port, host, exclusive: true }, () => resolve(server))
  })

const close = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))

function portOf(server: Server): number {
  const address = server.address()
  if (!address || typeof address === 'string') throw new Error('a listening socket without a port')
  return address.port
}
