import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { doctor, report } from './command-doctor'

const finding = {
  code: 'certificate_ends_soon',
  severity: 'warning',
  subject: { kind: 'device', id: '01939d4e', name: 'Roof' },
  cause: 'Its certificate ends tomorrow.',
  remedy: 'See that it is online.',
}

it('says of each finding why, and what to do', () => {
  const text = report({
    checkedAt: '2026-06-15T12:00:00Z',
    items: [finding],
    skipped: [{ check: 'broker', why: 'away' }],
  })
  expect(text).toBe(`WARNING  certificate_ends_soon: device Roof
  why:  Its certificate ends tomorrow.
  do:   See that it is online.

NOT LOOKED AT broker: away
1 finding (2026-06-15T12:00:00Z)
`)
  expect(report({ checkedAt: 'now', items: [], skipped: [] })).toBe('Nothing is wrong (now)\n')
})

describe('the command', () => {
  let server: Server
  let url: string
  let items: object[] = []
  const folder = mkdtempSync(join(tmpdir(), 'ares-doctor-'))
  const login = join(folder, 'login.json')

  beforeAll(async () => {
    writeFileSync(login, JSON.stringify({ email: 'a@example.org', password: 'x' }))
    server = createServer((request, response) => {
      const isLogin = request.url?.endsWith('/sessions')
      const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
      const body = isLogin ? { accessToken: 'x', expiresAt } : { checkedAt: 'now', items, skipped: [] }
      response.writeHead(isLogin ? 201 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(async () => {
    rmSync(folder, { recursive: true })
    await new Promise((resolve) => server.close(resolve))
  })
  beforeEach(() => {
    jest.spyOn(process.stdout, 'write').mockReturnValue(true)
  })
  afterEach(() => jest.restoreAllMocks())

  it('ends with 2 when something is critical, else with 0', async () => {
    items = [finding]
    expect(await doctor(['--api', url, '--login', login])).toBe(0)
    items = [{ ...finding, severity: 'critical' }]
    expect(await doctor(['--api', url, '--login', login])).toBe(2)
  })

  it('says what to do when there is no login, or nobody answers', async () => {
    await expect(doctor(['--api', url, '--login', '/nowhere'])).rejects.toMatchObject({
      remedy: expect.stringContaining('npm start'),
    })
    await expect(doctor(['--api', 'http://127.0.0.1:1', '--login', login])).rejects.toMatchObject({
      why: expect.stringContaining('does not answer'),
    })
  })
})
