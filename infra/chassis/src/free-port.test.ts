import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { freePort, freePorts, isFree } from './free-port'

it('ports that are asked for at once are all different, free, and none that an outgoing connection may get', async () => {
  const ports = [...(await freePorts(20)), await freePort()]
  expect(new Set(ports).size).toBe(21)
  for (const port of ports) {
    expect(port).toBeGreaterThanOrEqual(15_000)
    expect(port).toBeLessThan(32_768)
    expect(await isFree(port)).toBe(true)
  }
})

it('a port that somebody listens on is not free', async () => {
  const server = createServer().listen(await freePort(), '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  expect(await isFree(port)).toBe(false)
  server.close()
  await once(server, 'close')
  expect(await isFree(port)).toBe(true)
})
