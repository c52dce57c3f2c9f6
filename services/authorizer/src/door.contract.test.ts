import { TestAuthority, type TestLeaf, until } from '@ares/chassis/testing'
import { Role } from '@ares/proto/directory/v1/directory'
import type { IClientOptions, MqttClient } from 'mqtt'
import { Door, inside, isCutOff, NOT_AUTHORIZED, type Reception } from './testing/door'
import { Recorder } from './testing/recorder'
import { deviceEntry, inSeconds, TestSessions, userEntry } from './testing/test-directory'

/**
 * What was measured of EMQX 5.8.9, as one suite of tables. A row is a test, and lies where the part is that it speaks of:
 *
 *   answer of a hook -> what becomes of the client    emqx/embedded/hooks/authn-answers.test.ts, authz-answers.test.ts
 *   the fields of an authn answer, the order of rules emqx/embedded/hooks/authn-answers.test.ts, acl.test.ts
 *   who is asked about what, and what is answered     here: broker and authorizer together
 *   TLS: who is turned away before anybody is asked   here, and emqx/embedded/listener/mqtt-listener.test.ts
 *   authorizer absent, hung, slow, sick, 503, closed  door.failures.test.ts
 *   pool, pipelining, storms                          authn-answers.test.ts, webhook/webhook-server.test.ts
 *   mistakes in emqx.conf                             emqx/embedded/conf/conf-file.test.ts
 *   kick, listeners and their rates                   emqx/embedded/management, emqx/embedded/listener
 *
 * The embedded broker speaks MQTT 3.1.1 alone, so the reason codes of MQTT 5 (135, 134, 16) cannot be shown; where they
 * were measured, the row has what a client of 3.1.1 sees. Nothing else is left out, but what emqx.conf does not use: a second
 * authenticator, GET, mountpoints, topic aliases, client_attrs, peer_cert_as_username other than cn.
 */

const D1 = 'd1'
const D1_NAME = 'd1.device.ares4.internal'
const LISTENER = 'ares4-mqtt-listener-0123abcd'
const ANN = 'ann@x.org'
const ANY = expect.any(String)

let door: Door
let recorder: Recorder
let d1: TestLeaf
const sessions = new TestSessions()
const token = () => sessions.token({ sub: `id-of-${ANN}`, exp: inSeconds(60) })

beforeAll(async () => {
  door = await Door.open()
  d1 = await door.ca.leaf(D1_NAME)
  const authorizer = await door.startAuthorizer()
  recorder = await Recorder.start(
    await door.ca.leaf('authorizer.service.ares4.internal'),
    await door.ca.leaf('broker.ares4.internal'),
    authorizer.ports.webhook!,
  )
  door.gate.turn('open', recorder.port)
  await door.tell([
    sessions.entry(),
    deviceEntry(D1, [d1.serialBytes]),
    deviceEntry('d2', [], { organizationId: 'org-2' }),
    userEntry(ANN, { 'org-1': Role.ROLE_OPERATOR }),
  ])
}, 60_000)
beforeEach(() => {
  recorder.asked.length = 0
})
afterEach(() => door.leave())
afterAll(async () => {
  await recorder?.stop()
  await door?.close()
})

const device = (o: Partial<IClientOptions> = {}): Promise<Reception> => door.connectDevice(d1, D1, o)
const ann = (o: Partial<IClientOptions> = {}): Promise<Reception> => door.connectPerson(ANN, token(), o)

describe('a CONNECT is asked about once', () => {
  const asDevice = (subject: string, o: Partial<IClientOptions>) => async () =>
    door.connectDevice(await door.ca.leaf('', { subject }), D1, o)
  const atServices = (subject: string, clientId: string) => async () =>
    door.connectService(await door.ca.leaf(subject), clientId)
  const rows: ReadonlyArray<
    readonly [what: string, connect: () => Promise<Reception>, asked: object, result: 'allow' | 'deny']
  > = [
    [
      'a device: every value is a text, what it does not send is empty, the zone is that of its listener',
      () => device(),
      {
        clientid: D1,
        username: D1_NAME,
        password: '',
        peerhost: '127.0.0.1',
        cert_common_name: D1_NAME,
        zone: 'devices',
      },
      'allow',
    ],
    [
      'a device that claims a user name: the CN replaces it',
      () => device({ username: 'admin' }),
      { username: D1_NAME },
      'allow',
    ],
    ['a device that sends a password', () => device({ username: 'x', password: 'p' }), { password: 'p' }, 'allow'],
    [
      'a certificate without a CN: the claimed user name stays, the CN is empty',
      asDevice('O=Ares', { username: D1_NAME }),
      { username: D1_NAME, cert_common_name: '' },
      'deny',
    ],
    [
      'a certificate without a CN, and no user name',
      asDevice('O=Ares', {}),
      { username: '', cert_common_name: '' },
      'deny',
    ],
    [
      'two CNs: they come with a comma between them',
      asDevice(`CN=${D1_NAME},CN=other`, {}),
      { cert_common_name: `${D1_NAME},other`, username: `${D1_NAME},other` },
      'deny',
    ],
    ['a certificate that nobody has put down', asDevice(`CN=${D1_NAME}`, {}), { cert_common_name: D1_NAME }, 'deny'],
    ['the client id of another', () => device({ clientId: 'd2' }), { clientid: 'd2' }, 'deny'],
    ['the client id of a service', () => device({ clientId: LISTENER }), { clientid: LISTENER }, 'deny'],
    [
      'no client id: the one that the broker made',
      () => device({ clientId: '', clean: true }),
      { clientid: ANY },
      'deny',
    ],
    ['a client id in other characters', () => device({ clientId: 'dé1😀' }), { clientid: 'dé1😀' }, 'deny'],
    [
      'a listener at the door for services',
      atServices('listener.service.ares4.internal', LISTENER),
      { clientid: LISTENER, cert_common_name: 'listener.service.ares4.internal', zone: 'services' },
      'allow',
    ],
    ['a device at the door for services', atServices(D1_NAME, D1), { clientid: D1, zone: 'services' }, 'deny'],
    ['a device there under the client id of a listener', atServices(D1_NAME, LISTENER), { clientid: LISTENER }, 'deny'],
    [
      'a listener at the door for devices',
      async () => door.connectDevice(await door.ca.leaf('listener.service.ares4.internal'), LISTENER),
      { zone: 'devices' },
      'deny',
    ],
    [
      'a person: without a certificate, the user name as it is sent',
      () => ann(),
      { clientid: ANN, username: ANN, cert_common_name: '', cert_pem: '', zone: 'users' },
      'allow',
    ],
    ['a person who says the name of a device', () => ann({ username: D1_NAME }), { username: D1_NAME }, 'deny'],
    [
      'a person without user name and password',
      () => ann({ username: undefined, password: undefined }),
      { username: '', password: '' },
      'deny',
    ],
  ]

  it.each(rows)('%s', async (_what, connect, asked, result) => {
    const reception = await connect()
    const requests = recorder.take('/mqtt/authn')
    expect(requests).toHaveLength(1)
    const [request] = requests
    expect(request?.body).toMatchObject(asked)
    expect(Object.keys(request?.body ?? {}).sort()).toEqual(
      ['cert_common_name', 'cert_pem', 'clientid', 'password', 'peerhost', 'username', 'zone'].sort(),
    )
    expect(Object.values(request?.body ?? {}).filter((value) => typeof value !== 'string')).toEqual([])
    expect(request?.answer.result).toBe(result)
    if (result === 'allow') inside(reception)
    else expect(reception).toBe(NOT_AUTHORIZED)
  })

  it('the certificate comes as base64 of its DER, without armour and line breaks; the type is exactly application/json', async () => {
    await device()
    const [request] = recorder.take('/mqtt/authn')
    expect(request?.body.cert_pem).toBe(d1.der)
    expect(request?.headers['content-type']).toBe('application/json')
  })

  it('the answer for a device ends with its certificate, and its list with a denial of everything', async () => {
    await device()
    const [request] = recorder.take('/mqtt/authn')
    expect(request?.answer).toMatchObject({
      is_superuser: false,
      expire_at: Math.floor(d1.notAfter.getTime() / 1_000),
    })
    expect(request?.answer.acl?.at(-1)).toEqual({ permission: 'deny', action: 'all', topic: '#' })
  })

  it('the answer for a person has no list: each action is asked about', async () => {
    await ann()
    const [request] = recorder.take('/mqtt/authn')
    expect(request?.answer.acl).toBeUndefined()
    expect(Number.isInteger(request?.answer.expire_at)).toBe(true)
  })

  it('not at all when the password is not UTF-8: it is a refusal', async () => {
    expect(await ann({ password: Buffer.from([0xff, 0xfe]) })).toBe(NOT_AUTHORIZED)
    expect(recorder.asked).toEqual([])
  })

  it('not at all when TLS turns the client away: no certificate, another CA, an ended one, one for servers alone', async () => {
    const foreign = await (await TestAuthority.create()).leaf(D1_NAME)
    const ended = await door.ca.leaf(D1_NAME, { notBefore: new Date(0), notAfter: new Date(Date.now() - 60_000) })
    const forServers = await door.ca.leaf(D1_NAME, { client: false })
    for (const options of [
      { cert: undefined, key: undefined },
      { cert: foreign.certificatePem, key: foreign.keyPem },
      { cert: ended.certificatePem, key: ended.keyPem },
      { cert: forServers.certificatePem, key: forServers.keyPem },
    ]) {
      expect(await device(options)).toBe('closed')
    }
    expect(recorder.asked).toEqual([])
  })

  it('and a session ends when its certificate does, to the second', async () => {
    const notAfter = new Date(Math.ceil(Date.now() / 1_000) * 1_000 + 3_000)
    const brief = await door.ca.leaf('d3.device.ares4.internal', { notAfter })
    await door.tell([deviceEntry('d3', [brief.serialBytes]), deviceEntry(D1, [d1.serialBytes])], 2n)
    const client = inside(await door.connectDevice(brief, 'd3'))
    await new Promise<void>((resolve) => client.once('close', () => resolve()))
    expect(Date.now()).toBeGreaterThanOrEqual(notAfter.getTime() - 5)
    await door.tell(
      [
        sessions.entry(),
        deviceEntry(D1, [d1.serialBytes]),
        deviceEntry('d2', [], { organizationId: 'org-2' }),
        userEntry(ANN, { 'org-1': Role.ROLE_OPERATOR }),
      ],
      3n,
    )
  })
})

describe('an action of a person is asked about', () => {
  type Act = (client: MqttClient, answered: () => void) => void
  const subscribe =
    (filter: string, qos: 0 | 1 | 2 = 1): Act =>
    (client, answered) =>
      client.subscribe(filter, { qos }, answered)
  const publish =
    (topic: string, o: { qos?: 0 | 1 | 2; retain?: boolean } = {}): Act =>
    (client, answered) =>
      client.publish(topic, '{}', { qos: 1, ...o }, answered)
  const rows: ReadonlyArray<readonly [what: string, act: Act, asked: object, result: 'allow' | 'deny']> = [
    [
      'a subscription',
      subscribe('ares4/d1/telemetry'),
      { action: 'subscribe', topic: 'ares4/d1/telemetry', qos: '1', retain: 'false' },
      'allow',
    ],
    [
      'a subscription in a group: the topic',
      subscribe('$share/g/ares4/d1/telemetry'),
      { topic: 'ares4/d1/telemetry' },
      'allow',
    ],
    ['a subscription in the queue group', subscribe('$queue/ares4/d1/status'), { topic: 'ares4/d1/status' }, 'allow'],
    ['an exclusive subscription', subscribe('$exclusive/ares4/d1/status'), { topic: 'ares4/d1/status' }, 'allow'],
    ['a wildcard, as it is written', subscribe('ares4/+/telemetry'), { topic: 'ares4/+/telemetry' }, 'deny'],
    ['a group over all devices', subscribe('$share/g/ares4/+/telemetry'), { topic: 'ares4/+/telemetry' }, 'deny'],
    ['everything', subscribe('#'), { topic: '#' }, 'deny'],
    ['$SYS', subscribe('$SYS/#'), { topic: '$SYS/#' }, 'deny'],
    ['QoS 2', subscribe('ares4/d1/telemetry', 2), { qos: '2' }, 'deny'],
    ['another organization', subscribe('ares4/d2/telemetry'), { topic: 'ares4/d2/telemetry' }, 'deny'],
    [
      'a publication',
      publish('ares4/d1/commands/c1'),
      { action: 'publish', topic: 'ares4/d1/commands/c1', qos: '1', retain: 'false' },
      'allow',
    ],
    ['a publication at QoS 0', publish('ares4/d1/commands/c1', { qos: 0 }), { qos: '0' }, 'allow'],
    ['a publication at QoS 2', publish('ares4/d1/commands/c1', { qos: 2 }), { qos: '2' }, 'deny'],
    ['a retained publication', publish('ares4/d1/commands/c1', { retain: true }), { retain: 'true' }, 'deny'],
    ['a publication in the name of a device', publish('ares4/d1/telemetry'), { topic: 'ares4/d1/telemetry' }, 'deny'],
    [
      'a delayed publication: the topic',
      publish('$delayed/1/ares4/d2/commands/c'),
      { topic: 'ares4/d2/commands/c' },
      'deny',
    ],
  ]

  it.each(rows)('%s', async (_what, act, asked, result) => {
    const client = inside(await ann())
    recorder.asked.length = 0
    const cutOff = await isCutOff(client, (answered) => act(client, answered))
    await until(() => recorder.asked.length === 1, 'the question')
    const [request] = recorder.take('/mqtt/authz')
    const who = { clientid: ANN, username: ANN, peerhost: '127.0.0.1', cert_common_name: '' }
    expect(request?.body).toMatchObject({ ...who, ...asked })
    expect(Object.keys(request?.body ?? {})).toHaveLength(8)
    expect(request?.answer).toEqual({ result })
    // deny_action = disconnect: no SUBACK and no PUBACK, the connection ends.
    if (result === 'deny') expect(cutOff || !client.connected).toBe(true)
    else expect(client.connected).toBe(true)
  })

  it('once for each topic, QoS and retain flag of a connection; and anew by the next connection', async () => {
    const client = inside(await ann())
    recorder.asked.length = 0
    for (let i = 0; i < 3; i++) await client.publishAsync('ares4/d1/commands/c1', '{}', { qos: 1 })
    await client.publishAsync('ares4/d1/commands/c1', '{}', { qos: 0 })
    await client.publishAsync('ares4/d1/commands/c2', '{}', { qos: 1 })
    expect(recorder.take('/mqtt/authz')).toHaveLength(3)
    const again = inside(await ann())
    recorder.asked.length = 0
    await again.publishAsync('ares4/d1/commands/c1', '{}', { qos: 1 })
    expect(recorder.take('/mqtt/authz')).toHaveLength(1)
  })

  it('and not when it unsubscribes, or gets a message', async () => {
    const client = inside(await ann())
    let seen = 0
    client.on('message', () => {
      seen += 1
    })
    await client.subscribeAsync('ares4/d1/telemetry', { qos: 1 })
    const sensor = inside(await device())
    recorder.asked.length = 0
    await sensor.publishAsync('ares4/d1/telemetry', '{}', { qos: 1 })
    await until(() => seen === 1, 'the report')
    await client.unsubscribeAsync('ares4/d1/telemetry')
    expect(recorder.asked).toEqual([])
  })
})

describe('an action of a device is not asked about: its list answers', () => {
  it.each<readonly [string, (client: MqttClient, answered: () => void) => void, boolean]>([
    ['its report', (c, done) => c.publish('ares4/d1/telemetry', '{}', { qos: 1 }, done), true],
    ['its status, retained', (c, done) => c.publish('ares4/d1/status', '{}', { qos: 1, retain: true }, done), true],
    ['its commands', (c, done) => c.subscribe('ares4/d1/commands/+', { qos: 1 }, done), true],
    ['a report at QoS 2', (c, done) => c.publish('ares4/d1/telemetry', '{}', { qos: 2 }, done), false],
    ['a retained report', (c, done) => c.publish('ares4/d1/telemetry', '{}', { qos: 1, retain: true }, done), false],
    ['the report of another', (c, done) => c.publish('ares4/d2/telemetry', '{}', { qos: 1 }, done), false],
    ['the commands of all', (c, done) => c.subscribe('ares4/+/commands/+', { qos: 1 }, done), false],
    ['everything below its commands', (c, done) => c.subscribe('ares4/d1/commands/#', { qos: 1 }, done), false],
    ['the commands of another, in a group', (c, done) => c.subscribe('$share/g/ares4/d2/commands/+', done), false],
  ])('%s', async (_what, act, allowed) => {
    const client = inside(await device())
    recorder.asked.length = 0
    expect(await isCutOff(client, (answered) => act(client, answered))).toBe(!allowed)
    expect(recorder.asked).toEqual([])
  })

  it('but what begins with $, which the denial of # at its end does not match, is asked about and denied', async () => {
    const client = inside(await device())
    recorder.asked.length = 0
    expect(await isCutOff(client, (answered) => client.subscribe('$SYS/#', answered))).toBe(true)
    const [request] = recorder.take('/mqtt/authz')
    expect(request?.body).toMatchObject({ clientid: D1, cert_common_name: D1_NAME, topic: '$SYS/#' })
    expect(request?.answer).toEqual({ result: 'deny' })
  })

  it.each([
    ['its own status is published', 'ares4/d1/status', true],
    ['the status of another is dropped', 'ares4/d2/status', false],
  ])('a will: %s', async (_what, topic, published) => {
    const listener = inside(await door.connectService(await door.ca.leaf('listener.service.ares4.internal'), LISTENER))
    const seen: string[] = []
    listener.on('message', (on) => seen.push(on))
    await listener.subscribeAsync('ares4/+/status', { qos: 1 })
    await listener.subscribeAsync('ares4/+/telemetry', { qos: 1 })
    // The will is looked at when it is due, not at CONNECT.
    const client = inside(await device({ will: { topic, payload: Buffer.from('gone'), qos: 1, retain: true } }))
    client.stream.destroy()
    await new Promise<void>((resolve) => client.once('close', () => resolve()))
    const marker = inside(await device())
    await marker.publishAsync('ares4/d1/telemetry', '{}', { qos: 1 })
    await until(() => seen.includes('ares4/d1/telemetry'), 'the marker')
    if (published) await until(() => seen.includes(topic), 'the will')
    else expect(seen).not.toContain(topic)
  })
})
