import { TestAuthority, type TestLeaf } from '@ares/chassis/testing'
import { Role } from '@ares/proto/directory/v1/directory'
import { DirectoryTables } from '../replica/directory'
import type { Knowledge } from '../replica/directory-replica'
import { deviceEntry, inSeconds, revokedEntry, TestSessions, userEntry } from '../testing/test-directory'
import { type ConnectRequest, decideConnect } from './authn'
import { CertificateReader } from './certificate'
import type { Reason } from './decision'

const D1 = 'd1.device.ares4.internal'

let ca: TestAuthority
let d1: TestLeaf
let reader: CertificateReader
let knowledge: Knowledge
const sessions = new TestSessions()
const tables = new DirectoryTables()

beforeAll(async () => {
  ca = await TestAuthority.create()
  d1 = await ca.leaf(D1)
  reader = new CertificateReader(ca.caPem)
  tables.apply(deviceEntry('d1', [Buffer.from([9]), d1.serialBytes]))
  tables.apply(sessions.entry())
  tables.apply(userEntry('ann@example.org', { 'org-1': Role.ROLE_VIEWER }))
  tables.apply(userEntry('off@example.org', { 'org-1': Role.ROLE_OWNER }, { active: false }))
  knowledge = { directory: tables, version: 7n, ageMs: 1_000 }
})

const asDevice = (leaf: TestLeaf, other: Partial<ConnectRequest> = {}): ConnectRequest => ({
  clientid: 'd1',
  username: leaf.commonName,
  password: '',
  peerhost: '127.0.0.1',
  cert_common_name: leaf.commonName,
  cert_pem: leaf.der,
  zone: 'devices',
  ...other,
})

const asUser = (claims: Readonly<Record<string, unknown>>, other: Partial<ConnectRequest> = {}): ConnectRequest => ({
  clientid: 'ann@example.org/phone-1',
  username: 'ann@example.org',
  password: sessions.token(claims),
  peerhost: '127.0.0.1',
  cert_common_name: '',
  cert_pem: '',
  zone: 'users',
  ...other,
})

const ann = () => ({ sub: 'id-of-ann@example.org', exp: inSeconds(600) })

const decide = (request: ConnectRequest, known: Knowledge | undefined = knowledge) =>
  decideConnect(request, known, Date.now(), { certificates: reader })

const reasonFor = (request: ConnectRequest): Reason => decide(request).reason

describe('a device', () => {
  it('is let in with its certificate and client id, until the certificate ends, with its own rights and no more', () => {
    const decision = decide(asDevice(d1))
    expect(decision).toMatchObject({
      result: 'allow',
      reason: 'allowed',
      className: 'device',
      subjectId: 'd1',
      expireAt: Math.floor(d1.notAfter.getTime() / 1_000),
      directoryVersion: 7n,
      directoryAgeMs: 1_000,
    })
    expect(Number.isInteger(decision.expireAt)).toBe(true)
    expect(decision.acl).not.toContain('{deviceId}')
    for (const rule of JSON.parse(decision.acl ?? '[]').slice(0, -1)) expect(rule.topic).toMatch(/^(eq )?ares4\/d1\//)
  })

  it('may claim any user name: the certificate alone says who it is', () => {
    expect(reasonFor(asDevice(d1, { username: 'somebody' }))).toBe('allowed')
  })

  it.each([
    ['a client id of another device', { clientid: 'd2' }, 'wrong_client_id'],
    ['a client id in capitals', { clientid: 'D1' }, 'wrong_client_id'],
    ["a server's client id", { clientid: 'ares-server-v2-0123abcd' }, 'wrong_client_id'],
    ["a listener's client id", { clientid: 'ares4-mqtt-listener-0123abcd' }, 'wrong_client_id'],
    ["the services' zone", { zone: 'services' }, 'wrong_zone'],
    ["the users' zone", { zone: 'users' }, 'certificate_not_for_people'],
    ['the default zone', { zone: 'default' }, 'unknown_zone'],
    ['a placeholder that the broker did not know', { zone: '$' + '{zone}' }, 'unknown_zone'],
    ['no certificate', { cert_pem: '' }, 'certificate_missing'],
    ['a placeholder for a certificate', { cert_pem: '$' + '{cert_pem}' }, 'certificate_unreadable'],
    ['bytes that are no certificate', { cert_pem: 'MIIBAAAA' }, 'certificate_unreadable'],
    ['a CN that is not the certificate’s', { cert_common_name: 'd2.device.ares4.internal' }, 'common_name_differs'],
    ['no CN beside a certificate', { cert_common_name: '' }, 'common_name_differs'],
  ] as const)('is refused with %s', (_, other, reason) => {
    expect(decide(asDevice(d1, other))).toMatchObject({ result: 'deny', reason })
    expect(decide(asDevice(d1, other)).acl).toBeUndefined()
  })

  it('is refused with a certificate as PEM text, which is not what the broker sends', () => {
    const pem = Buffer.from(d1.certificatePem).toString('base64')
    expect(reasonFor(asDevice(d1, { cert_pem: pem }))).toBe('certificate_unreadable')
  })

  it('is refused with a good name on a certificate of another CA', async () => {
    const foreign = await (await TestAuthority.create()).leaf(D1)
    tables.apply(deviceEntry('d1', [d1.serialBytes, foreign.serialBytes]))
    expect(reasonFor(asDevice(foreign))).toBe('certificate_foreign')
    tables.apply(deviceEntry('d1', [d1.serialBytes]))
  })

  it('is refused with a certificate of ours that nobody has put down', async () => {
    expect(reasonFor(asDevice(await ca.leaf(D1)))).toBe('certificate_unknown')
  })

  it('is refused after the end of its certificate and before its beginning', async () => {
    const yesterday = new Date(Date.now() - 86_400_000)
    const tomorrow = new Date(Date.now() + 86_400_000)
    const old = await ca.leaf(D1, { notBefore: new Date(0), notAfter: yesterday })
    const early = await ca.leaf(D1, { notBefore: tomorrow, notAfter: new Date(tomorrow.getTime() + 1_000) })
    expect(reasonFor(asDevice(old))).toBe('certificate_expired')
    expect(reasonFor(asDevice(early))).toBe('certificate_not_yet_valid')
  })

  it('is refused when its certificate is revoked, even if the list of its certificates still has it', async () => {
    const leaf = await ca.leaf('d3.device.ares4.internal')
    tables.apply(deviceEntry('d3', [leaf.serialBytes]))
    expect(reasonFor(asDevice(leaf, { clientid: 'd3' }))).toBe('allowed')
    tables.apply(revokedEntry(leaf.serialBytes, 'd3'))
    expect(reasonFor(asDevice(leaf, { clientid: 'd3' }))).toBe('certificate_revoked')
  })

  it('is refused when it is switched off, and when it is no more', async () => {
    const leaf = await ca.leaf('d4.device.ares4.internal')
    tables.apply(deviceEntry('d4', [leaf.serialBytes], { active: false }))
    expect(reasonFor(asDevice(leaf, { clientid: 'd4' }))).toBe('device_disabled')
    tables.apply({ entry: { $case: 'removedDeviceId', value: 'd4' } })
    expect(reasonFor(asDevice(leaf, { clientid: 'd4' }))).toBe('device_unknown')
  })

  it.each([
    ['two CNs', `CN=${D1},CN=d2.device.ares4.internal`],
    ['no CN', 'O=Ares'],
    ['a CN that hides in another attribute', `O=CN\\=${D1}`],
    ['a CN of no class', 'CN=d1.ares4.internal'],
    ['a CN in capitals', 'CN=D1.device.ares4.internal'],
    ['a CN with a dot at its end', `CN=${D1}.`],
    ['a CN of two labels', 'CN=a.b.device.ares4.internal'],
  ])('is nobody with %s', async (_, subject) => {
    const leaf = await ca.leaf('', { subject })
    const shown = subject.replace(/^CN=/, '').replace(',CN=', ',')
    expect(decide(asDevice(leaf, { cert_common_name: shown })).result).toBe('deny')
    expect(decide(asDevice(leaf, { cert_common_name: D1 })).result).toBe('deny')
  })
})

describe('a service', () => {
  const LISTENER = 'listener.service.ares4.internal'

  it('is let in as a listener with its certificate and client id', async () => {
    const leaf = await ca.leaf(LISTENER)
    const request = asDevice(leaf, { clientid: 'ares4-mqtt-listener-0123abcd', zone: 'services' })
    expect(decide(request)).toMatchObject({ result: 'allow', className: 'listener', subjectId: 'listener' })
  })

  it.each([
    [LISTENER, { clientid: 'ares4-mqtt-listener-0123abc' }, 'wrong_client_id'],
    [LISTENER, { clientid: 'ares4-mqtt-listener-0123abcde' }, 'wrong_client_id'],
    [LISTENER, { clientid: 'ares4-mqtt-listener-0123ABCD' }, 'wrong_client_id'],
    [LISTENER, { clientid: 'ares-server-v2-0123abcd' }, 'wrong_client_id'],
    [LISTENER, { clientid: 'd1' }, 'wrong_client_id'],
    [LISTENER, { clientid: 'ares4-mqtt-listener-0123abcd', zone: 'devices' }, 'wrong_zone'],
    ['api.service.ares4.internal', { clientid: 'ares4-mqtt-listener-0123abcd' }, 'wrong_client_id'],
    ['authorizer.service.ares4.internal', { clientid: 'ares-server-v2-0123abcd' }, 'service_without_mqtt'],
    ['broker.ares4.internal', { clientid: 'broker' }, 'nobody'],
    ['other.service.ares4.internal', { clientid: 'ares-server-v2-0123abcd' }, 'nobody'],
  ] as const)('%s is refused with %j: %s', async (commonName, other, reason) => {
    expect(reasonFor(asDevice(await ca.leaf(commonName), { zone: 'services', ...other }))).toBe(reason)
  })

  it('is refused with a certificate of another CA', async () => {
    const leaf = await (await TestAuthority.create()).leaf(LISTENER)
    const request = asDevice(leaf, { clientid: 'ares4-mqtt-listener-0123abcd', zone: 'services' })
    expect(reasonFor(request)).toBe('certificate_foreign')
  })
})

describe('a person', () => {
  it('is let in with e-mail and access token until the token ends, and every action is asked for', () => {
    const claims = ann()
    const decision = decide(asUser(claims))
    expect(decision).toMatchObject({ result: 'allow', className: 'user', expireAt: claims.exp })
    expect(decision.acl).toBeUndefined()
  })

  it('may have the e-mail alone as client id', () => {
    expect(reasonFor(asUser(ann(), { clientid: 'ann@example.org' }))).toBe('allowed')
  })

  it.each([
    ['a device', 'd1'],
    ['another person', 'bob@example.org/phone'],
    ['a name that only begins alike', 'ann@example.orgx'],
    ['a path', 'ann@example.org/a/b'],
    ['nothing', ''],
  ])('is refused with the client id of %s', (_, clientid) => {
    expect(reasonFor(asUser(ann(), { clientid }))).toBe('wrong_client_id')
  })

  it.each([
    ['no token', () => ''],
    ['a placeholder', () => '$' + '{password}'],
    ['a token without a signature', () => sessions.token(ann()).replace(/[^.]+$/, '')],
    ['a token of another key', () => new TestSessions().token(ann())],
    ['another key under the same name', () => new TestSessions().token(ann(), { kid: sessions.kid })],
    ['alg none', () => sessions.token(ann(), { alg: 'none' })],
    ['alg HS256', () => sessions.token(ann(), { alg: 'HS256' })],
    ['a token of another type', () => sessions.token(ann(), { typ: 'JWT' })],
    ['a token for another audience', () => sessions.token({ ...ann(), aud: 'others' })],
    ['a token of another issuer', () => sessions.token({ ...ann(), iss: 'others' })],
    ['a critical header', () => sessions.token(ann(), { crit: ['exp'] })],
    ['no end', () => sessions.token({ sub: ann().sub })],
    ['an end that is a text', () => sessions.token({ sub: ann().sub, exp: '9999999999' })],
    ['a token that begins tomorrow', () => sessions.token({ ...ann(), nbf: inSeconds(86_400) })],
    ['a token of 5,000 characters', () => sessions.token({ ...ann(), x: 'x'.repeat(5_000) })],
  ])('is refused with %s', (_, token) => {
    expect(reasonFor(asUser({}, { password: token() }))).toBe('token_unreadable')
  })

  it('is refused with a token that has ended, or whose key has', () => {
    expect(reasonFor(asUser({ ...ann(), exp: inSeconds(-1) }))).toBe('token_expired')
    const old = new TestSessions()
    tables.apply(old.entry(new Date(Date.now() - 1)))
    expect(reasonFor(asUser({}, { password: old.token(ann()) }))).toBe('token_expired')
  })

  it('is refused with the token of another person, when unknown and when switched off', () => {
    expect(reasonFor(asUser({ ...ann(), sub: 'id-of-bob' }))).toBe('token_of_another')
    expect(reasonFor(asUser(ann(), { username: 'nobody@example.org' }))).toBe('user_unknown')
    const off = { username: 'off@example.org', clientid: 'off@example.org' }
    expect(reasonFor(asUser({ ...ann(), sub: 'id-of-off@example.org' }, off))).toBe('user_disabled')
  })

  it('is refused on the listener of devices', () => {
    expect(reasonFor(asUser(ann(), { zone: 'devices' }))).toBe('certificate_missing')
  })
})

describe('knowledge', () => {
  it('is needed: without a first snapshot everybody is refused', () => {
    expect(decideConnect(asDevice(d1), undefined, Date.now(), { certificates: reader })).toEqual({
      result: 'deny',
      reason: 'no_directory',
    })
  })

  it('may be as old as the settings say', () => {
    const old: Knowledge = { ...knowledge, ageMs: 60_001 }
    const rules = { certificates: reader, refuseWhenOlderThanMs: 60_000 }
    expect(decideConnect(asDevice(d1), old, Date.now(), rules).reason).toBe('directory_too_old')
    expect(decide(asDevice(d1), old).reason).toBe('allowed')
  })

  it('of a CA that was replaced ends with it', async () => {
    const other = new CertificateReader(ca.caPem)
    expect(other.read(d1.der)?.ours).toBe(true)
    other.trust((await TestAuthority.create()).caPem)
    expect(other.read(d1.der)?.ours).toBe(false)
  })
})
