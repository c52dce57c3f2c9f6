import { once } from 'node:events'
import { Agent, request } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { createLogger, createMetrics, type Leaf } from '@ares/chassis'
import { TestAuthority, TestIdentity, type TestLeaf, until } from '@ares/chassis/testing'
import fc from 'fast-check'
import { CertificateReader } from '../decision/certificate'
import { AdmissionJournal } from '../journal/admission-journal'
import { DirectoryReplica } from '../replica/directory-replica'
import { deviceEntry, snapshot } from '../testing/test-directory'
import { Admission } from './admission'
import { AdmissionMetrics } from './admission-metrics'
import { RefusalLog } from './refusal-log'
import { WebhookServer } from './webhook-server'

const DEVICE_ID = 'd1'
const logger = createLogger({ service: 'test', level: 'error' })

let ca: TestAuthority
let identity: TestIdentity
let broker: TestLeaf
let device: TestLeaf
let server: WebhookServer
let agent: Agent
const refused: string[] = []

const tls = (leaf: Leaf) => ({
  ca: ca.caPem,
  cert: leaf.chainPem,
  key: leaf.keyPem,
  servername: 'authorizer.service.ares4.internal',
})

beforeAll(async () => {
  ca = await TestAuthority.create()
  identity = new TestIdentity(await ca.leaf('authorizer.service.ares4.internal'))
  broker = await ca.leaf('broker.ares4.internal')
  device = await ca.leaf(`${DEVICE_ID}.device.ares4.internal`)
  const replica = new DirectoryReplica()
  for (const event of snapshot([deviceEntry(DEVICE_ID, [device.serialBytes])])) replica.receive(event)
  const journal = new AdmissionJournal()
  const admission = new Admission({
    replica,
    metrics: new AdmissionMetrics(createMetrics('test'), replica, journal),
    logger,
    refusals: new RefusalLog(logger),
    journal,
    rules: { certificates: new CertificateReader(ca.caPem) },
  })
  server = await WebhookServer.start({
    identity,
    bind: { host: '127.0.0.1', port: 0 },
    logger,
    hooks: {
      '/mqtt/authn': admission.connect,
      '/mqtt/authz': admission.action,
      '/broken': () => {
        throw new Error('meant to fail')
      },
    },
    onRefused: (cause) => refused.push(cause),
  })
  agent = new Agent({ keepAlive: true, maxSockets: 8, ...tls(broker) })
})

afterEach(() => refused.splice(0))

afterAll(async () => {
  agent.destroy()
  await server.stop(100)
})

const connectBody = () => ({
  clientid: DEVICE_ID,
  username: device.commonName,
  password: '',
  peerhost: '127.0.0.1',
  cert_common_name: device.commonName,
  cert_pem: device.der,
  zone: 'devices',
})

const actionBody = () => ({
  clientid: DEVICE_ID,
  username: device.commonName,
  peerhost: '127.0.0.1',
  cert_common_name: device.commonName,
  topic: `ares4/${DEVICE_ID}/telemetry`,
  action: 'publish',
  qos: '1',
  retain: 'false',
})

interface Answer {
  readonly status: number | undefined
  readonly type: string | undefined
  readonly body: string
}

function ask(
  path: string,
  body: string | Buffer,
  o: { readonly method?: string; readonly headers?: Record<string, string | number> } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: '127.0.0.1',
        port: server.port,
        path,
        method: o.method ?? 'POST',
        agent,
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...o.headers },
      },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('end', () =>
          resolve({
            status: response.statusCode,
            type: response.headers['content-type'],
            body: Buffer.concat(parts).toString(),
          }),
        )
      },
    )
    asked.on('error', reject)
    asked.end(body)
  })
}

const json = (path: string, value: unknown) => ask(path, JSON.stringify(value))

async function open(leaf?: Leaf): Promise<TLSSocket> {
  const socket = connect({
    host: '127.0.0.1',
    port: server.port,
    ...(leaf ? tls(leaf) : { ...tls(broker), cert: undefined, key: undefined }),
  })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

const http = (path: string, body: string): string =>
  `POST ${path} HTTP/1.1\r\nhost: authorizer\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

const DENIED = { status: 200, type: 'application/json', body: '{"result":"deny"}' }

describe('the answers', () => {
  it('to authn say allow, no superuser, the end of the certificate in whole seconds, and a closed list', async () => {
    const answer = await json('/mqtt/authn', connectBody())
    expect(answer).toMatchObject({ status: 200, type: 'application/json' })
    const body = JSON.parse(answer.body)
    expect(Object.keys(body).sort()).toEqual(['acl', 'expire_at', 'is_superuser', 'result'])
    expect(body).toMatchObject({
      result: 'allow',
      is_superuser: false,
      expire_at: Math.floor(device.notAfter.getTime() / 1_000),
    })
    expect(body.acl.at(-1)).toEqual({ permission: 'deny', action: 'all', topic: '#' })
  })

  it('to authz are exactly allow or deny', async () => {
    expect(await json('/mqtt/authz', actionBody())).toEqual({ ...DENIED, body: '{"result":"allow"}' })
    expect(await json('/mqtt/authz', { ...actionBody(), topic: 'ares4/d2/telemetry' })).toEqual(DENIED)
  })

  it('are a denial when the decision itself fails', async () => {
    const error = jest.spyOn(logger, 'error').mockReturnValue(logger)
    expect(await ask('/broken', '{}')).toEqual(DENIED)
    expect(error).toHaveBeenCalledTimes(1)
    error.mockRestore()
    expect(refused).toEqual(['internal_error'])
  })

  it.each([
    ['another path', '/mqtt/other', {}, 404],
    ['a path of every object', '/constructor', {}, 404],
    ['a query', '/mqtt/authn?x', {}, 404],
    ['GET', '/mqtt/authn', { method: 'GET' }, 405],
    ['a form', '/mqtt/authn', { headers: { 'content-type': 'application/x-www-form-urlencoded' } }, 415],
    ['no type', '/mqtt/authn', { headers: { 'content-type': '' } }, 415],
  ])('to %s is a refusal before the body is read', async (_, path, o, status) => {
    expect((await ask(path, JSON.stringify(connectBody()), o)).status).toBe(status)
  })

  it('to a body of more than 64 KiB is 413, with and without a length', async () => {
    const socket = await open(broker)
    socket.write(
      `POST /mqtt/authn HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 65537\r\n\r\n`,
    )
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 413 /)
    socket.destroy()
    const chunked = await open(broker)
    const part = `${(16_384).toString(16)}\r\n${'x'.repeat(16_384)}\r\n`
    chunked.write(
      `POST /mqtt/authn HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n${part.repeat(5)}`,
    )
    expect(String((await once(chunked, 'data'))[0])).toMatch(/^HTTP\/1.1 413 /)
    chunked.destroy()
  })
})

describe('whatever comes as a body', () => {
  const neverAllowed = async (path: string, body: string | Buffer) => {
    const answer = await ask(path, body)
    if (answer.status === 200) expect(answer).toEqual(DENIED)
    else expect(answer.status).toBeGreaterThanOrEqual(400)
  }
  const path = fc.constantFrom('/mqtt/authn', '/mqtt/authz')

  it('as JSON, it is a denial', async () => {
    await fc.assert(
      fc.asyncProperty(path, fc.json(), (to, body) => neverAllowed(to, body)),
      { numRuns: 300 },
    )
  })

  it('as bytes, it is a denial', async () => {
    await fc.assert(
      fc.asyncProperty(path, fc.uint8Array({ maxLength: 300 }), (to, body) => neverAllowed(to, Buffer.from(body))),
      { numRuns: 300 },
    )
  })

  it('of any size, it is a denial, or refused from 64 KiB on', async () => {
    const good = JSON.stringify(connectBody())
    await fc.assert(
      fc.asyncProperty(path, fc.nat(80_000), fc.boolean(), async (to, size, padded) => {
        // A good body with so much behind it, or the letter so often.
        const body = padded ? `${good}x${' '.repeat(size)}` : 'x'.repeat(size)
        const answer = await ask(to, body).catch((error: Error & { code?: string }) => error.code)
        if (body.length <= 65_536) expect(answer).toEqual(DENIED)
        // The connection ends with the refusal, it may be before all of the body is on its way.
        else if (typeof answer === 'object') expect(answer.status).toBe(413)
        else expect(['ECONNRESET', 'EPIPE']).toContain(answer)
      }),
      { numRuns: 60 },
    )
  })

  it('as a good body with one wrong value, it is a denial', async () => {
    const value = fc.oneof(fc.jsonValue(), fc.string({ maxLength: 200 }))
    const field = fc.constantFrom(
      'clientid',
      'cert_common_name',
      'cert_pem',
      'zone',
      'topic',
      'action',
      'qos',
      'retain',
    )
    await fc.assert(
      fc.asyncProperty(field, value, async (name, wrong) => {
        const path = name === 'cert_pem' || name === 'zone' ? '/mqtt/authn' : '/mqtt/authz'
        const good: Record<string, unknown> = path === '/mqtt/authn' ? connectBody() : actionBody()
        if (good[name] === wrong || (name === 'qos' && wrong === '0')) return
        await neverAllowed(path, JSON.stringify({ ...good, [name]: wrong }))
      }),
      { numRuns: 300 },
    )
  })

  it('as a good body without one of its fields, it is a denial', async () => {
    for (const [path, good] of [
      ['/mqtt/authn', connectBody()],
      ['/mqtt/authz', actionBody()],
    ] as const) {
      for (const name of Object.keys(good)) await neverAllowed(path, JSON.stringify({ ...good, [name]: undefined }))
    }
  })

  it('as something that is not HTTP, the connection ends and the cause is counted', async () => {
    const socket = await open(broker)
    socket.write('\u0010\u0004MQTT\r\n\r\n')
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 400 /)
    await until(() => refused.some((cause) => cause.startsWith('http_HPE_')), 'the count')
    socket.destroy()
  })
})

describe('the door', () => {
  it('is closed to a client without a certificate, of another CA, and of another name than the broker', async () => {
    const foreign = await (await TestAuthority.create()).leaf('broker.ares4.internal')
    const listener = await ca.leaf('listener.service.ares4.internal')
    for (const leaf of [undefined, foreign, listener]) {
      const socket = await open(leaf)
      let answered = ''
      socket.on('data', (part) => {
        answered += part
      })
      socket.write(http('/mqtt/authn', JSON.stringify(connectBody())))
      await new Promise((resolve) => (socket.destroyed ? resolve(0) : socket.once('close', resolve)))
      expect(answered).toBe('')
    }
    await until(() => refused.length >= 3, 'three counts')
    expect(refused).toContain('not_the_broker')
    expect(refused.filter((cause) => cause.startsWith('tls_')).length).toBe(2)
  })

  it('shows a new certificate to new connections and keeps the old ones', async () => {
    const before = await open(broker)
    const serialOf = (socket: TLSSocket) => socket.getPeerCertificate().serialNumber.toLowerCase()
    const renewed = await ca.leaf('authorizer.service.ares4.internal')
    identity.renew(renewed)
    const after = await open(broker)
    expect(serialOf(after)).toBe(renewed.serialBytes.toString('hex'))
    expect(serialOf(before)).not.toBe(serialOf(after))
    for (const socket of [before, after]) {
      socket.write(http('/mqtt/authz', JSON.stringify(actionBody())))
      expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 200 OK/)
      socket.destroy()
    }
    await expect(open().then((socket) => once(socket, 'data'))).rejects.toBeDefined()
  })
})

describe('connections', () => {
  it('beyond the limit are closed at once and counted; a place that becomes free is taken', async () => {
    const causes: string[] = []
    const small = await WebhookServer.start({
      identity,
      bind: { host: '127.0.0.1', port: 0 },
      logger,
      hooks: { '/mqtt/authz': () => '{"result":"allow"}' },
      connections: 2,
      onRefused: (cause) => causes.push(cause),
    })
    const connection = () => connect({ host: '127.0.0.1', port: small.port, ...tls(broker) }).on('error', () => {})
    const answers = async (socket: TLSSocket) => {
      socket.write(http('/mqtt/authz', JSON.stringify(actionBody())))
      return String((await once(socket, 'data'))[0])
    }
    const isOpened = (socket: TLSSocket) =>
      new Promise<boolean>((resolve) => {
        socket.once('secureConnect', () => resolve(true)).once('close', () => resolve(false))
      })
    const [first, second] = [connection(), connection()]
    expect(await Promise.all([first, second].map(isOpened))).toEqual([true, true])
    expect(await isOpened(connection())).toBe(false)
    expect(causes).toEqual(['too_many_connections'])
    expect(await answers(first)).toMatch(/^HTTP\/1.1 200 /)

    second.destroy()
    const next = await until(async () => {
      const socket = connection()
      return (await isOpened(socket)) ? socket : undefined
    }, 'a free place')
    expect(await answers(next)).toMatch(/^HTTP\/1.1 200 /)
    first.destroy()
    next.destroy()
    await small.stop(100)
  })
})

describe('time', () => {
  it('cuts a request that does not come to its end, and leaves connections alone that wait for their next one', async () => {
    const causes: string[] = []
    const hasty = await WebhookServer.start({
      identity,
      bind: { host: '127.0.0.1', port: 0 },
      logger,
      hooks: { '/mqtt/authz': () => '{"result":"allow"}' },
      requestMs: 1_000,
      onRefused: (cause) => causes.push(cause),
    })
    const connection = async () => {
      const socket = connect({ host: '127.0.0.1', port: hasty.port, ...tls(broker) })
      socket.on('error', () => {})
      await once(socket, 'secureConnect')
      return socket
    }
    const unused = await connection()
    const used = await connection()
    const slow = await connection()
    const body = JSON.stringify(actionBody())
    used.write(http('/mqtt/authz', body))
    expect(String((await once(used, 'data'))[0])).toMatch(/^HTTP\/1.1 200 /)
    slow.write(http('/mqtt/authz', body).slice(0, -5))
    expect(String((await once(slow, 'data'))[0])).toMatch(/^HTTP\/1.1 408 /)
    expect(causes).toContain('http_ERR_HTTP_REQUEST_TIMEOUT')
    await new Promise((resolve) => setTimeout(resolve, 2_500))
    for (const waiting of [unused, used]) {
      waiting.write(http('/mqtt/authz', body))
      expect(String((await once(waiting, 'data'))[0])).toMatch(/^HTTP\/1.1 200 /)
      waiting.destroy()
    }
    slow.destroy()
    await hasty.stop(100)
  })

  it('counts a request whose client goes away in the middle', async () => {
    const socket = await open(broker)
    socket.write(http('/mqtt/authz', JSON.stringify(actionBody())).slice(0, -5))
    await new Promise((resolve) => setTimeout(resolve, 50))
    socket.destroy()
    await until(() => refused.includes('broken_off'))
  })

  it('cuts a handshake that does not come to its end, counts it once, and answers nothing in its place', async () => {
    const causes: string[] = []
    const hasty = await WebhookServer.start({
      identity,
      bind: { host: '127.0.0.1', port: 0 },
      logger,
      hooks: {},
      requestMs: 200,
      onRefused: (cause) => causes.push(cause),
    })
    const silent = connectTcp({ host: '127.0.0.1', port: hasty.port })
    let answered = ''
    silent.on('data', (part) => {
      answered += part
    })
    await once(silent, 'close')
    expect(answered).toBe('')
    expect(causes).toEqual(['tls_ERR_TLS_HANDSHAKE_TIMEOUT'])
    await hasty.stop(100)
  })
})

describe('a storm', () => {
  it('of 500 connects over pipelining connections is answered in full, and no connection breaks', async () => {
    const body = JSON.stringify(connectBody())
    const sockets = await Promise.all(Array.from({ length: 5 }, () => open(broker)))
    const answers = await Promise.all(
      sockets.map(async (socket) => {
        let text = ''
        const done = new Promise<void>((resolve) => {
          socket.on('data', (part) => {
            text += part
            if ((text.match(/HTTP\/1.1 200 /g) ?? []).length === 100) resolve()
          })
          socket.on('close', () => resolve())
        })
        socket.write(http('/mqtt/authn', body).repeat(100))
        await done
        socket.destroy()
        return (text.match(/"result":"allow"/g) ?? []).length
      }),
    )
    expect(answers).toEqual([100, 100, 100, 100, 100])
    expect(refused).toEqual([])
  })

  it('of 500 connects, one at a time on each of 32 connections, is answered in full', async () => {
    const body = JSON.stringify(connectBody())
    const pool = new Agent({ keepAlive: true, maxSockets: 32, ...tls(broker) })
    const previous = agent
    agent = pool
    const answers = await Promise.all(Array.from({ length: 500 }, () => ask('/mqtt/authn', body)))
    agent = previous
    pool.destroy()
    expect(answers.filter(({ body: text }) => text.startsWith('{"result":"allow"')).length).toBe(500)
    expect(refused).toEqual([])
  })
})
