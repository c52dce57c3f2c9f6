import type { AddressInfo } from 'node:net'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '@ares/chassis/testing'
import { Link } from './link'

let echo: Server
let link: Link
const sockets: Socket[] = []

beforeEach(async () => {
  echo = createServer((socket) => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve))
  link = await Link.open(() => (echo.address() as AddressInfo).port)
})

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  await link.close()
  await new Promise((resolve) => echo.close(resolve))
})

function through(): { said: () => string; closed: Promise<void>; say(text: string): void } {
  const socket = connect({ port: link.port, host: '127.0.0.1' })
  sockets.push(socket)
  let heard = ''
  socket.on('error', () => {})
  socket.on('data', (chunk) => (heard += chunk.toString()))
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return { said: () => heard, closed, say: (text) => socket.write(text) }
}

it('carries what is said in both directions', async () => {
  const client = through()
  client.say('one')
  await until(() => client.said() === 'one')
})

it('carries nothing and closes nothing while it hangs, and goes on where it was', async () => {
  const client = through()
  client.say('one')
  await until(() => client.said() === 'one')
  link.cut('hang')
  client.say(' two')
  const late = through()
  late.say('late')
  await sleep(200)
  expect(client.said()).toBe('one')
  expect(late.said()).toBe('')
  link.heal()
  await until(() => client.said() === 'one two' && late.said() === 'late')
})

it('carries no more than its limit to the target, of all connections together, and all when that is taken away', async () => {
  const text = 'x'.repeat(200_000)
  const clients = [through(), through()]
  for (const client of clients) client.say('on')
  await until(() => clients.every((client) => client.said() === 'on'))
  const before = link.carried
  const beganAt = performance.now()
  link.limit(100_000)
  for (const client of clients) client.say(text)
  await until(() => link.carried - before >= 200_000)
  // What is read at once may be 64 KiB of each connection; a second's worth is far from that.
  expect(performance.now() - beganAt).toBeGreaterThan(500)
  link.limit(undefined)
  await until(() => clients.every((client) => client.said().length === 200_002))
  expect(link.carried - before).toBe(400_000)
})

it('ends every connection when it is closed, new ones too, until it is healed', async () => {
  const client = through()
  client.say('one')
  await until(() => client.said() === 'one')
  link.cut('close')
  await client.closed
  await through().closed
  link.heal()
  const next = through()
  next.say('again')
  await until(() => next.said() === 'again')
})
