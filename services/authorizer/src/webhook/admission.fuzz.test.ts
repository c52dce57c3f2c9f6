import { X509Certificate } from 'node:crypto'
import { createLogger, createMetrics } from '@ares/chassis'
import { TestAuthority, type TestLeaf } from '@ares/chassis/testing'
import { Role } from '@ares/proto/directory/v1/directory'
import fc from 'fast-check'
import { CertificateReader } from '../decision/certificate'
import { AdmissionJournal } from '../journal/admission-journal'
import { DirectoryReplica } from '../replica/directory-replica'
import { deviceEntry, inSeconds, snapshot, TestSessions, userEntry } from '../testing/test-directory'
import { Admission } from './admission'
import { AdmissionMetrics } from './admission-metrics'
import { RefusalLog } from './refusal-log'

/**
 * Bodies that were allowed, and then changed: at any byte, in any value, by parts of each other. Whatever comes, the answer
 * is one of the two, and `allow` only where all that says who it is, and what is wanted, still agrees with one that is
 * allowed. Bodies of no likeness to a good one are in webhook-server.test.ts.
 */

type Body = Readonly<Record<string, string>>

const ANN = 'ann@x.org'
const LISTENER = 'ares4-mqtt-listener-0123abcd'
const sessions = new TestSessions()

let admission: Admission
let connects: Body[]
let actions: Body[]

beforeAll(async () => {
  const ca = await TestAuthority.create()
  const [d1, d2, listener] = await Promise.all(
    ['d1.device.ares4.internal', 'd2.device.ares4.internal', 'listener.service.ares4.internal'].map((name) =>
      ca.leaf(name),
    ),
  )
  const logger = createLogger({ service: 'test', level: 'silent' })
  const replica = new DirectoryReplica()
  const entries = [
    sessions.entry(),
    deviceEntry('d1', [d1!.serialBytes]),
    deviceEntry('d2', [d2!.serialBytes], { organizationId: 'org-2' }),
    userEntry(ANN, { 'org-1': Role.ROLE_OPERATOR }),
  ]
  for (const event of snapshot(entries)) replica.receive(event)
  const journal = new AdmissionJournal()
  admission = new Admission({
    replica,
    metrics: new AdmissionMetrics(createMetrics('test'), replica, journal),
    logger,
    refusals: new RefusalLog(logger),
    journal: { note: () => {} },
    rules: { certificates: new CertificateReader(ca.caPem) },
  })
  const connect = (leaf: TestLeaf | undefined, clientid: string, zone: string, other: Partial<Body> = {}): Body => ({
    clientid,
    username: leaf?.commonName ?? '',
    password: '',
    peerhost: '127.0.0.1',
    cert_common_name: leaf?.commonName ?? '',
    cert_pem: leaf?.der ?? '',
    zone,
    ...other,
  })
  const password = sessions.token({ sub: `id-of-${ANN}`, exp: inSeconds(3_600) })
  connects = [
    connect(d1, 'd1', 'devices'),
    connect(d2, 'd2', 'devices'),
    connect(listener, LISTENER, 'services'),
    connect(undefined, ANN, 'users', { username: ANN, password }),
  ]
  const action = (
    clientid: string,
    username: string,
    cn: string,
    verb: string,
    topic: string,
    retain = 'false',
  ): Body => ({
    clientid,
    username,
    peerhost: '127.0.0.1',
    cert_common_name: cn,
    topic,
    action: verb,
    qos: '1',
    retain,
  })
  actions = [
    action('d1', d1!.commonName, d1!.commonName, 'publish', 'ares4/d1/telemetry'),
    action('d2', d2!.commonName, d2!.commonName, 'publish', 'ares4/d2/status', 'true'),
    action('d1', d1!.commonName, d1!.commonName, 'subscribe', 'ares4/d1/commands/+'),
    action(LISTENER, listener!.commonName, listener!.commonName, 'subscribe', 'ares4/+/telemetry'),
    action(LISTENER, listener!.commonName, listener!.commonName, 'publish', 'ares4/d1/receipts'),
    action(ANN, ANN, '', 'subscribe', 'ares4/d1/telemetry'),
    action(ANN, ANN, '', 'publish', 'ares4/d1/commands/c1'),
  ]
})

it('as they are, they are allowed', () => {
  for (const body of connects) expect(JSON.parse(admission.connect(bytesOf(body))).result).toBe('allow')
  for (const body of actions) expect(JSON.parse(admission.action(bytesOf(body))).result).toBe('allow')
})

describe.each([
  ['authn', () => connects, (body: Buffer) => admission.connect(body), () => isOneOfTheConnects],
  ['authz', () => actions, (body: Buffer) => admission.action(body), () => isWithinTheRights],
] as const)('a body of %s that was allowed', (_hook, bodies, ask, oracle) => {
  let allowed = 0

  const expectJustified = (body: Buffer): void => {
    const answer = JSON.parse(ask(body)) as { result: string }
    expect(['allow', 'deny']).toContain(answer.result)
    if (answer.result === 'deny') return
    allowed += 1
    const read: unknown = JSON.parse(body.toString('utf8'))
    if (!oracle()(read as Body)) throw new Error(`allowed: ${body.toString('utf8')}`)
  }

  const index = fc.nat(100)
  const pick = (at: number): Body => bodies()[at % bodies().length]!

  it('and then has other bytes', () => {
    const change = fc.record({ at: fc.nat(4_000), remove: fc.nat(3), insert: fc.uint8Array({ maxLength: 3 }) })
    fc.assert(
      fc.property(index, fc.array(change, { minLength: 1, maxLength: 4 }), (at, changes) => {
        let body = bytesOf(pick(at))
        for (const { at: place, remove, insert } of changes) {
          const start = place % (body.length + 1)
          body = Buffer.concat([body.subarray(0, start), insert, body.subarray(start + remove)])
        }
        expectJustified(body)
      }),
      { numRuns: 4_000 },
    )
  })

  it('and then has other values, of other bodies, of other types, or none', () => {
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.string({ maxLength: 40 }),
      fc.constantFrom(
        '',
        'd1',
        'd2',
        'D1',
        'd1 ',
        'd1\u0000',
        'd1/',
        '+',
        '#',
        'ares4/#',
        '$share/g/#',
        'users',
        '0',
        '2',
        'true',
      ),
      fc.constantFrom('d2.device.ares4.internal', 'd1.device.ares4.internal,d2.device.ares4.internal', LISTENER, ANN),
      fc.constant(undefined),
    )
    const taken = fc.record({ from: index, field: fc.nat(20), value: fc.option(value, { nil: null }) })
    fc.assert(
      fc.property(index, fc.array(taken, { minLength: 1, maxLength: 5 }), (at, changes) => {
        const body: Record<string, unknown> = { ...pick(at) }
        for (const { from, field, value: other } of changes) {
          const names = Object.keys(pick(at))
          const name = names[field % names.length]!
          body[name] = other === null ? pick(from)[name] : other
        }
        expectJustified(Buffer.from(JSON.stringify(body)))
      }),
      { numRuns: 6_000 },
    )
    expect(allowed).toBeGreaterThan(100)
  })

  it('and then says the same field twice, or as that of every object', () => {
    const names = fc.constantFrom(
      '__proto__',
      'constructor',
      'prototype',
      'clientid',
      'cert_common_name',
      'topic',
      'zone',
    )
    fc.assert(
      fc.property(index, index, names, fc.boolean(), (at, other, name, first) => {
        const good = JSON.stringify(pick(at)).slice(1, -1)
        const value = name in pick(other) ? JSON.stringify(pick(other)[name]) : JSON.stringify(pick(other))
        const more = `${JSON.stringify(name)}:${value}`
        expectJustified(Buffer.from(`{${first ? `${more},${good}` : `${good},${more}`}}`))
      }),
      { numRuns: 500 },
    )
  })
})

const bytesOf = (body: Body): Buffer => Buffer.from(JSON.stringify(body))

/** Each listener has an id of its own; which one is no matter of rights. */
const isListenerId = (clientId = ''): boolean => /^ares4-mqtt-listener-[0-9a-f]{8}$/.test(clientId)

/** The same client id, names and certificate as one that is allowed. What is left may say anything. */
function isOneOfTheConnects(body: Body): boolean {
  const fingerprint = (text: string) =>
    text === '' ? '' : new X509Certificate(Buffer.from(text, 'base64')).fingerprint256
  return connects.some((good) => {
    const same = good.zone === body.zone && good.cert_common_name === body.cert_common_name
    if (!same || fingerprint(good.cert_pem ?? '') !== fingerprint(body.cert_pem ?? '')) return false
    if (good.zone === 'services') return isListenerId(body.clientid)
    if (good.zone === 'devices') return good.clientid === body.clientid
    const ownId = body.clientid === ANN || body.clientid?.startsWith(`${ANN}/`) === true
    return ownId && good.username === body.username && tokenOf(good.password) === tokenOf(body.password)
  })
}

/** The last character of a signature has bits that mean nothing. */
function tokenOf(password = ''): string {
  const [header, payload, signature = ''] = password.split('.')
  return `${header}.${payload}.${Buffer.from(signature, 'base64url').toString('hex')}`
}

/** Who it is agrees in itself, and the topic is in the own branch, or in a branch that the service or person has. */
function isWithinTheRights({ clientid, username, cert_common_name, topic = '', action, qos, retain }: Body): boolean {
  if (!['0', '1'].includes(qos ?? '') || !['publish', 'subscribe'].includes(action ?? '')) return false
  const [, id = '', branch = ''] = topic
    .replace(/^\$share\/[^/+#]+\/|^\$(queue|exclusive)\/|^\$delayed\/\d+\//, '')
    .split('/')
  const branches = (publish: string[], subscribe: string[]) =>
    (action === 'publish' ? publish : subscribe).includes(branch)
  if (action === 'publish' && retain === 'true' && branch !== 'status') return false
  if (cert_common_name === '') {
    const ownId = clientid === ANN || clientid?.startsWith(`${ANN}/`) === true
    const own = username === ANN && ownId && id === 'd1'
    return own && branches(['commands'], ['telemetry', 'status', 'receipts', 'responses'])
  }
  if (isListenerId(clientid)) {
    if (cert_common_name !== 'listener.service.ares4.internal') return false
    const some = ['telemetry', 'status', 'responses', 'certificate']
    return branches(['receipts', 'errors', 'commands', 'certificate'], some) && (action === 'publish' || id === '+')
  }
  if (!['d1', 'd2'].includes(clientid ?? '') || cert_common_name !== `${clientid}.device.ares4.internal`) return false
  if (id !== clientid) return false
  return branches(
    ['telemetry', 'status', 'responses', 'certificate'],
    ['commands', 'receipts', 'errors', 'certificate'],
  )
}
