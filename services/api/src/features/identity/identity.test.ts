import { decodeJwt, decodeProtectedHeader } from 'jose'
import { newId } from '../../ids'
import { startTestApi, type TestApi } from '../../testing/api'
import { AuditService } from '../audit/audit.service'
import { AuditStore } from '../audit/audit.store'
import { AccessTokens } from './access-token'
import { SessionKeyStore } from './session-keys.store'
import { SessionStore } from './sessions.store'
import { UserService } from './users.service'
import { UserStore } from './users.store'

describe('sessions', () => {
  let api: TestApi
  beforeAll(async () => {
    api = await startTestApi()
  })
  afterAll(() => api.stop())

  const login = (email: string, password: string) => api.call('post', '/sessions', { body: { email, password } })
  const refresh = (refreshToken: string) => api.call('post', '/sessions/refresh', { body: { refreshToken } })

  it('begin with e-mail and password, and last fifteen minutes', async () => {
    const person = await api.person('Ada@example.org'.toLowerCase())
    const { status, body } = await login(' ADA@example.org ', person.password)
    expect(status).toBe(201)
    expect(body.user).toEqual({ id: person.id, email: 'ada@example.org', name: null })
    const { exp = 0, iat = 0 } = decodeJwt(body.accessToken)
    expect([exp - iat, new Date(body.expiresAt).getTime()]).toEqual([900, exp * 1_000])
    expect((await api.call('get', '/users/me', { token: body.accessToken })).body.email).toBe('ada@example.org')
  })

  it('refuse an unknown e-mail and a wrong password with the same words', async () => {
    const person = await api.person()
    const wrong = await login(person.email, 'not the password')
    const unknown = await login('nobody@example.org', 'not the password')
    expect([wrong.status, wrong.body.code]).toEqual([401, 'login_failed'])
    const plain = ({ requestId, ...problem }: { requestId: string }) => problem
    expect(plain(unknown.body)).toEqual(plain(wrong.body))
  })

  it('are slowed after ten failures of one address at one account, and only there', async () => {
    const person = await api.person()
    for (let attempt = 0; attempt < 10; attempt++) await login(person.email, `guess ${attempt}`)
    const answer = await login(person.email, person.password)
    expect([answer.status, answer.body.code]).toEqual([429, 'too_many_attempts'])
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await api.person()).token).toBeTruthy()
  })

  it('are refreshed by a token that is good for one use; a second use ends the session for everybody', async () => {
    const person = await api.person()
    const second = await refresh(person.refreshToken)
    expect(second.status).toBe(201)
    const third = await refresh(second.body.refreshToken)
    expect(third.status).toBe(201)
    expect((await refresh(person.refreshToken)).body.code).toBe('refresh_token_reused')
    expect((await refresh(third.body.refreshToken)).status).toBe(401)
    const { prisma } = api.context.database
    expect(await prisma.audit.count({ where: { action: 'session.refresh_token_reused', subjectId: person.id } })).toBe(
      1,
    )
  })

  it('are refreshed once when two ask at the same moment', async () => {
    const person = await api.person()
    const answers = await Promise.all([refresh(person.refreshToken), refresh(person.refreshToken)])
    expect(answers.map((answer) => answer.status).sort()).toEqual([201, 401])
  })

  it('end with logging out', async () => {
    const person = await api.person()
    expect((await api.call('delete', '/sessions/current', { token: person.token })).status).toBe(204)
    expect((await refresh(person.refreshToken)).status).toBe(401)
  })

  it('end with a new password, which needs the present one', async () => {
    const person = await api.person()
    const change = (current: string) =>
      api.call('patch', '/users/me', {
        token: person.token,
        body: { password: { current, next: 'another long password' } },
      })
    expect((await change('wrong')).body.code).toBe('wrong_password')
    expect((await change(person.password)).status).toBe(200)
    expect((await refresh(person.refreshToken)).status).toBe(401)
    expect((await login(person.email, 'another long password')).status).toBe(201)
  })

  it('keep nothing of a token but its hash', async () => {
    const person = await api.person()
    const { prisma } = api.context.database
    const rows = await prisma.refreshToken.findMany({ where: { userId: person.id } })
    expect(rows).toHaveLength(1)
    expect(Buffer.from(rows[0]!.tokenHash).includes(Buffer.from(person.refreshToken, 'base64url'))).toBe(false)
    const user = await prisma.user.findUniqueOrThrow({ where: { id: person.id } })
    expect(user.passwordHash).toMatch(/^scrypt\$1024\$8\$1\$[\w-]+\$[\w-]+$/)
  })

  it('do not let a person in who was switched off', async () => {
    const person = await api.person()
    await api.context.database.prisma.user.update({ where: { id: person.id }, data: { active: false } })
    expect((await api.call('get', '/organizations', { token: person.token })).body.code).toBe('account_disabled')
    expect((await refresh(person.refreshToken)).status).toBe(401)
  })
})

describe('access tokens', () => {
  let api: TestApi
  beforeAll(async () => {
    api = await startTestApi()
  })
  afterAll(() => api.stop())

  const claims = { userId: newId(), email: 'ada@example.org', sessionId: newId() }

  it('of one replica are verified by another, through the stored public key', async () => {
    const { prisma } = api.context.database
    const [one, other] = [new AccessTokens(new SessionKeyStore(prisma)), new AccessTokens(new SessionKeyStore(prisma))]
    const { token } = await one.sign(claims)
    await expect(other.verify(token)).resolves.toEqual(claims)
    const { kid, alg } = decodeProtectedHeader(token)
    expect(alg).toBe('EdDSA')
    const changes = await prisma.directoryChange.findMany({ where: { kind: 'session_key', id: kid } })
    expect(changes).toHaveLength(1)
  })

  it('are refused when changed, unsigned, of an unknown key or of a key that has ended', async () => {
    const { prisma } = api.context.database
    const tokens = new AccessTokens(new SessionKeyStore(prisma))
    const { token } = await tokens.sign(claims)
    const [header = '', payload = '', signature = ''] = token.split('.')
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const other = encode({ ...decodeJwt(token), email: 'eve@example.org' })
    const unsigned = encode({ ...decodeProtectedHeader(token), alg: 'none' })
    const unknown = encode({ ...decodeProtectedHeader(token), kid: newId() })
    for (const made of [
      `${header}.${other}.${signature}`,
      `${unsigned}.${payload}.`,
      `${unknown}.${payload}.${signature}`,
      'x',
      'a.b.c',
    ]) {
      await expect(tokens.verify(made)).rejects.toMatchObject({ kind: 'unauthenticated', code: 'token_invalid' })
    }
    await prisma.sessionKey.updateMany({ data: { notAfter: new Date(Date.now() - 1_000) } })
    await expect(new AccessTokens(new SessionKeyStore(prisma)).verify(token)).rejects.toMatchObject({
      code: 'token_invalid',
    })
  })
})

describe('the first user', () => {
  it('is made once, even by two replicas at the same moment', async () => {
    const api = await startTestApi()
    try {
      const { prisma } = api.context.database
      const audit = new AuditService(new AuditStore(prisma))
      const users = new UserService(new UserStore(prisma), new SessionStore(prisma), audit, { N: 1_024, r: 8, p: 1 })
      const made = await Promise.all([
        users.ensureFirst('Root@example.org', 'a long password'),
        users.ensureFirst('root@example.org', 'a long password'),
      ])
      expect(made.sort()).toEqual([false, true])
      expect(await users.ensureFirst('second@example.org', 'a long password')).toBe(false)
      expect((await prisma.user.findMany()).map((user) => user.email)).toEqual(['root@example.org'])
    } finally {
      await api.stop()
    }
  })
})
