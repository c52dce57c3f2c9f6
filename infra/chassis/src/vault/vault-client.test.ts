import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { inspect } from 'node:util'
import type { Leaf } from '../leaf'
import { TestAuthority } from '../testing'
import { createVaultClient, type VaultClient } from './vault-client'
import { VaultError } from './vault-error'

// The answers are those of a real OpenBao 2.7.2, as measured; what a real server does with our calls is shown in
// vault/src/identity.test.ts.

const TOKEN = 's.AbCdEfGhIjKlMnOpQrStUvWx'
let server: Server
let client: VaultClient
let requests: Array<{ method: string; url: string; headers: IncomingMessage['headers']; body: string }>
let respond: (response: ServerResponse, count: number) => void

beforeEach(async () => {
  requests = []
  respond = (response) => json(response, 200, { data: {} })
  server = createServer((request, response) => void record(request, response)).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  client = createVaultClient({ address: `http://127.0.0.1:${portOf(server)}`, token: TOKEN, timeoutMs: 2_000 })
})
afterEach(() => {
  client.close()
  server.close()
  server.closeAllConnections()
})

async function record(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = ''
  for await (const part of request) body += String(part)
  requests.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, body })
  respond(response, requests.length)
}
const portOf = (of: { address(): unknown }) => (of.address() as AddressInfo).port
const json = (response: ServerResponse, status: number, body: unknown) => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
const failure = (call: Promise<unknown>): Promise<VaultError> =>
  call.then(
    () => Promise.reject(new Error('it succeeded')),
    (error: VaultError) => {
      expect(error).toBeInstanceOf(VaultError)
      return error
    },
  )

describe('an answer', () => {
  it.each([
    [503, ['Vault is sealed'], 'sealed', true],
    [500, ['local node not active but active cluster node not found'], 'standby', true],
    [403, ['1 error occurred:\n\t* permission denied\n\n'], 'denied', false],
    [403, ['permission denied'], 'token_gone', false],
    [403, ['2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n'], 'token_gone', false],
    [404, [], 'not_found', false],
    [400, ['invalid role or secret ID'], 'rejected', false],
    [405, [], 'rejected', false],
    [429, [], 'rate_limited', true],
    [500, ['role "x" does not exist during renewal'], 'server', false],
    [502, [], 'server', true],
    [307, [], 'standby', true],
  ])('%s %p is %s', async (status, errors, code, temporary) => {
    respond = (response) => json(response, status, { errors })
    expect(await failure(client.write('x/y', {}))).toMatchObject({ code, status, temporary })
    expect(requests).toHaveLength(1)
  })

  it('of 404 is nothing for a read and an empty list, also with the body of a deleted secret', async () => {
    respond = (response) => json(response, 404, { data: { data: null, metadata: { deletion_time: 'x' } } })
    expect(await client.read('kv/data/x')).toBeUndefined()
    respond = (response) => json(response, 404, { errors: [] })
    expect(await client.list('pki_int/certs')).toEqual([])
  })

  it('of 202 and 204 is a success', async () => {
    respond = (response) => json(response, 202, { data: null, warnings: ['Tidy operation successfully started.'] })
    expect(await client.write('pki_int/tidy', {})).toEqual({
      data: {},
      warnings: ['Tidy operation successfully started.'],
    })
    respond = (response) => void response.writeHead(204).end()
    expect(await client.write('sys/mounts/pki', {})).toEqual({ data: {}, warnings: [] })
  })
})

describe('health', () => {
  it.each([
    [200, { initialized: true, sealed: false, standby: false, version: '2.7.2', server_time_utc: 1 }, 'active'],
    [429, { initialized: true, sealed: false, standby: true }, 'standby'],
    [501, { initialized: false, sealed: true, standby: true }, 'uninitialized'],
    [503, { initialized: true, sealed: true, standby: true }, 'sealed'],
  ])('%s is %j', async (status, body, state) => {
    respond = (response) => json(response, status, body)
    expect(await client.health()).toMatchObject({ status, state })
  })

  it('is no health when the answer is not of a Vault', async () => {
    respond = (response) => void response.writeHead(400).end('Client sent an HTTP request to an HTTPS server.')
    expect(await failure(client.health())).toMatchObject({ code: 'server', status: 400 })
    respond = (response) => json(response, 200, { hello: 'world' })
    expect((await failure(client.health())).code).toBe('server')
    respond = (response) => json(response, 503, { errors: ['no'] })
    expect((await failure(client.read('sys/health'))).status).toBe(503)
  })
})

describe('a call', () => {
  it('carries the token of the client as it is now', async () => {
    await client.read('a')
    client.token = 's.second'
    await client.read('a')
    client.token = undefined
    await client.read('a')
    expect(requests.map(({ headers }) => headers['x-vault-token'])).toEqual([TOKEN, 's.second', undefined])
  })

  it('takes nothing from the environment', async () => {
    Object.assign(process.env, {
      VAULT_TOKEN: 's.env',
      VAULT_NAMESPACE: 'ns',
      VAULT_PREFIX: '/p',
      HTTP_PROXY: 'http://127.0.0.1:1',
    })
    try {
      const other = createVaultClient({ address: `http://127.0.0.1:${portOf(server)}` })
      await other.read('a')
      other.close()
    } finally {
      for (const name of ['VAULT_TOKEN', 'VAULT_NAMESPACE', 'VAULT_PREFIX', 'HTTP_PROXY']) delete process.env[name]
    }
    expect(requests[0]).toMatchObject({ url: '/v1/a' })
    expect(requests[0]?.headers).not.toHaveProperty('x-vault-token')
    expect(requests[0]?.headers).not.toHaveProperty('x-vault-namespace')
  })

  it('sends merge patches, lists, wrapping and logins as Vault wants them', async () => {
    respond = (response) =>
      json(response, 200, { auth: { client_token: 't', policies: ['api'], lease_duration: 60, renewable: true } })
    await client.patch('pki_int/roles/x', { ttl: 1 })
    await client.list('pki_int/certs')
    await client.write('auth/approle/role/api/secret-id', {}, { wrapTtl: '120s' })
    expect(await client.login('r', 's')).toEqual({ token: 't', policies: ['api'], leaseSeconds: 60, renewable: true })
    expect(client.token).toBe(TOKEN)
    expect(requests.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'PATCH /v1/pki_int/roles/x',
      'GET /v1/pki_int/certs?list=true',
      'POST /v1/auth/approle/role/api/secret-id',
      'POST /v1/auth/approle/login',
    ])
    expect(requests[0]?.headers['content-type']).toBe('application/merge-patch+json')
    expect(requests[2]?.headers['x-vault-wrap-ttl']).toBe('120s')
    expect(requests[3]?.headers).not.toHaveProperty('x-vault-token')
    expect(requests[3]?.body).toBe('{"role_id":"r","secret_id":"s"}')
  })

  it('is tried again after a temporary fault only when that is harmless', async () => {
    respond = (response, count) =>
      count < 3
        ? json(response, 500, { errors: ['local node not active but x'] })
        : json(response, 200, { data: { a: 1 } })
    expect((await client.read('a'))?.data).toEqual({ a: 1 })
    expect(requests).toHaveLength(3)
    requests.length = 0
    expect((await failure(client.write('pki_int/sign/service', {}))).code).toBe('standby')
    expect(requests).toHaveLength(1)
    requests.length = 0
    await client.write('pki_int/revoke', {}, { idempotent: true })
    expect(requests).toHaveLength(3)
  })

  it('ends at its limit when the server is silent and when its answer drips', async () => {
    respond = () => {}
    expect((await failure(client.write('a', {}, { timeoutMs: 150 }))).code).toBe('timeout')
    let drip: NodeJS.Timeout | undefined
    respond = (response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      drip = setInterval(() => response.write(' '), 20)
    }
    const startedAt = Date.now()
    expect((await failure(client.read('a', { timeoutMs: 300 }))).code).toBe('timeout')
    clearInterval(drip)
    expect(Date.now() - startedAt).toBeLessThan(5_000)
  })

  it('ends with the signal of the call or of the client', async () => {
    respond = () => {}
    const stopping = new AbortController()
    setTimeout(() => stopping.abort(), 50)
    expect((await failure(client.read('a', { signal: stopping.signal }))).code).toBe('aborted')
    expect((await failure(client.read('a', { signal: stopping.signal }))).code).toBe('aborted')
  })

  it('tells its failures to whoever counts them', async () => {
    const codes: string[] = []
    const counting = createVaultClient({
      address: `http://127.0.0.1:${portOf(server)}`,
      onError: ({ code }) => codes.push(code),
    })
    respond = (response) => json(response, 503, { errors: ['Vault is sealed'] })
    await failure(counting.write('a', {}))
    counting.close()
    expect(codes).toEqual(['sealed'])
  })
})

describe('an error', () => {
  const secrets = { secret_id: 'my-secret-id', nested: { key: 'my-key' } }
  const clean = (error: VaultError) => {
    const said = `${inspect(error, { depth: 9, showHidden: true })} ${JSON.stringify(error)} ${error.stack}`
    expect(said).not.toMatch(/my-secret-id|my-key|AbCdEfGhIj/)
    expect(error.cause).toBeUndefined()
  }

  it('of the network holds neither token nor body', async () => {
    respond = (response) => void response.destroy()
    const reset = await failure(client.write('auth/approle/login', secrets))
    expect(reset).toMatchObject({ code: 'unreachable', message: expect.stringContaining('ECONNRESET') })
    clean(reset)
    const gone = createVaultClient({ address: 'http://127.0.0.1:1', token: TOKEN })
    const refused = await failure(gone.write('a', secrets))
    gone.close()
    expect(refused.message).toBe('Vault POST a: http://127.0.0.1:1 cannot be reached (ECONNREFUSED)')
    clean(refused)
    respond = () => {}
    clean(await failure(client.write('a', secrets, { timeoutMs: 50 })))
  })

  it('of an answer holds neither token nor body, even when the answer repeats them', async () => {
    respond = (response) => json(response, 400, { errors: [`bad token ${TOKEN}`], data: secrets })
    clean(await failure(client.write('a', secrets)))
  })
})

describe('TLS', () => {
  let authority: TestAuthority
  let leaf: Leaf
  beforeAll(async () => {
    authority = await TestAuthority.create()
    leaf = await authority.leaf('vault')
  })

  it('takes the CA it was given and no other, and keeps its connection', async () => {
    let connections = 0
    const secure = createSecureServer({ key: leaf.keyPem, cert: leaf.chainPem }, (_request, response) =>
      json(response, 200, { data: { ok: 1 } }),
    ).listen(0, '127.0.0.1')
    secure.on('secureConnection', () => {
      connections += 1
    })
    await new Promise((resolve) => secure.once('listening', resolve))
    const address = `https://localhost:${portOf(secure)}`
    const good = createVaultClient({ address, caPem: authority.rootPem })
    for (let i = 0; i < 20; i++) expect((await good.read('a'))?.data).toEqual({ ok: 1 })
    expect(connections).toBe(1)

    const other = createVaultClient({ address, caPem: (await TestAuthority.create('Other')).rootPem, token: TOKEN })
    const error = await failure(other.read('a'))
    expect(error).toMatchObject({ code: 'unreachable', temporary: false })
    expect(error.message).toMatch(/certificate of https:\/\/localhost:\d+ is not accepted .*ARES_VAULT_CA_FILE/)
    good.close()
    other.close()
    secure.close()
    secure.closeAllConnections()
  })

  it('takes a fault of TLS that is not about the certificate for one that passes', async () => {
    // Somebody who speaks no TLS: so does a proxy whose server is not up yet.
    const client = createVaultClient({ address: `https://127.0.0.1:${portOf(server)}`, caPem: authority.rootPem })
    expect(await failure(client.read('a'))).toMatchObject({ code: 'unreachable', temporary: true })
    client.close()
  })
})
