import { type TestLeaf, until } from '@ares/chassis/testing'
import { Role } from '@ares/proto/directory/v1/directory'
import { Door, inside, isCutOff, NOT_AUTHORIZED, type Reception } from './testing/door'
import { change, deviceEntry, inSeconds, TestSessions, userEntry } from './testing/test-directory'

const OWN = 'd1'
const FOREIGN = 'd2'

let door: Door
let device: TestLeaf
const sessions = new TestSessions()

beforeAll(async () => {
  door = await Door.open()
  device = await door.ca.leaf(`${OWN}.device.ares4.internal`)
  await door.startAuthorizer()
  await door.tell([
    sessions.entry(),
    deviceEntry(OWN, [device.serialBytes], { organizationId: 'org-1' }),
    deviceEntry(FOREIGN, [], { organizationId: 'org-2' }),
    userEntry('viewer@x.org', { 'org-1': Role.ROLE_VIEWER }),
    userEntry('operator@x.org', { 'org-1': Role.ROLE_OPERATOR, 'org-2': Role.ROLE_VIEWER }),
    userEntry('leaver@x.org', { 'org-1': Role.ROLE_VIEWER }),
  ])
}, 60_000)
afterEach(() => door.leave())
afterAll(() => door?.close())

const person = (email: string, seconds = 60): Promise<Reception> =>
  door.connectPerson(email, sessions.token({ sub: `id-of-${email}`, exp: inSeconds(seconds) }))

describe('a viewer', () => {
  it('sees telemetry, status and receipts of the devices of the organization', async () => {
    const viewer = inside(await person('viewer@x.org'))
    const seen: string[] = []
    viewer.on('message', (topic, payload) => seen.push(`${topic} ${payload}`))
    const filters = ['telemetry', 'telemetry/+', 'status', 'receipts'].map((branch) => `ares4/${OWN}/${branch}`)
    const granted = await viewer.subscribeAsync(filters, { qos: 1 })
    expect(granted.map(({ qos }) => qos)).toEqual([1, 1, 1, 1])
    const sensor = inside(await door.connectDevice(device, OWN))
    await sensor.publishAsync(`ares4/${OWN}/telemetry`, '{}', { qos: 1 })
    await sensor.publishAsync(`ares4/${OWN}/status`, 'on', { qos: 1, retain: true })
    await until(() => seen.length === 2, 'both messages')
    expect(seen).toEqual([`ares4/${OWN}/telemetry {}`, `ares4/${OWN}/status on`])
  })

  it.each([
    ['all devices at once', 'ares4/+/telemetry'],
    ['everything', '#'],
    ['everything of the device', `ares4/${OWN}/#`],
    ['more than one format at once', `ares4/${OWN}/telemetry/#`],
    ['commands', `ares4/${OWN}/commands/+`],
    ['a device of another organization', `ares4/${FOREIGN}/telemetry`],
    ['the same in a group', `$share/g/ares4/${FOREIGN}/telemetry`],
    ['a device that is not there', 'ares4/d9/telemetry'],
    ['what the broker says of itself', '$SYS/#'],
  ])('is cut off for a subscription to %s', async (_what, filter) => {
    const viewer = inside(await person('viewer@x.org'))
    expect(await isCutOff(viewer, (answered) => viewer.subscribe(filter, answered))).toBe(true)
  })

  it('is cut off for a command', async () => {
    const viewer = inside(await person('viewer@x.org'))
    expect(
      await isCutOff(viewer, (answered) => viewer.publish(`ares4/${OWN}/commands/1`, '{}', { qos: 1 }, answered)),
    ).toBe(true)
  })
})

describe('an operator', () => {
  it('commands a device, which gets it', async () => {
    const sensor = inside(await door.connectDevice(device, OWN))
    const got: string[] = []
    sensor.on('message', (topic) => got.push(topic))
    await sensor.subscribeAsync(`ares4/${OWN}/commands/+`, { qos: 1 })
    const operator = inside(await person('operator@x.org'))
    await operator.subscribeAsync(`ares4/${OWN}/responses/+`, { qos: 1 })
    await operator.publishAsync(`ares4/${OWN}/commands/1`, '{"name":"blink"}', { qos: 1 })
    await until(() => got.length === 1, 'the command')
    expect(got).toEqual([`ares4/${OWN}/commands/1`])
  })

  it('may only look where the role is viewer', async () => {
    const operator = inside(await person('operator@x.org'))
    const [granted] = await operator.subscribeAsync(`ares4/${FOREIGN}/telemetry`, { qos: 1 })
    expect(granted?.qos).toBe(1)
    expect(
      await isCutOff(operator, (answered) =>
        operator.publish(`ares4/${FOREIGN}/commands/1`, '{}', { qos: 1 }, answered),
      ),
    ).toBe(true)
  })

  it('cannot speak for a device', async () => {
    const operator = inside(await person('operator@x.org'))
    expect(
      await isCutOff(operator, (answered) => operator.publish(`ares4/${OWN}/telemetry`, '{}', { qos: 1 }, answered)),
    ).toBe(true)
  })
})

describe('who comes in', () => {
  it.each([
    ['without a token', ''],
    ['with a made-up token', 'e30.e30.e30'],
    ['with the token of somebody else', sessions.token({ sub: 'id-of-operator@x.org', exp: inSeconds(60) })],
    ['with a token that has ended', sessions.token({ sub: 'id-of-viewer@x.org', exp: inSeconds(-1) })],
    ['with a token of an unknown key', new TestSessions().token({ sub: 'id-of-viewer@x.org', exp: inSeconds(60) })],
  ])('not %s', async (_what, token) => {
    expect(await door.connectPerson('viewer@x.org', token)).toBe(NOT_AUTHORIZED)
  })

  it("not under a device's or another person's client id", async () => {
    const token = sessions.token({ sub: 'id-of-viewer@x.org', exp: inSeconds(60) })
    for (const clientId of [OWN, 'operator@x.org', 'viewer@x.orgs', 'ares4-mqtt-listener-0123abcd']) {
      expect(await door.connectPerson('viewer@x.org', token, { clientId })).toBe(NOT_AUTHORIZED)
    }
  })
})

it('the session ends when the token does', async () => {
  const viewer = inside(await person('viewer@x.org', 3))
  const connectedAt = Date.now()
  await new Promise<void>((resolve) => viewer.once('close', () => resolve()))
  const lastedMs = Date.now() - connectedAt
  expect(lastedMs).toBeGreaterThan(1_000)
  expect(lastedMs).toBeLessThan(6_000)
})

it('who is no member any more gets nothing new, and nothing at all after the kick', async () => {
  const leaver = inside(await person('leaver@x.org'))
  await leaver.subscribeAsync(`ares4/${OWN}/telemetry`, { qos: 1 })
  door.api.lastCall.write(change(2n, userEntry('leaver@x.org', {})))
  await door.known(2n)
  const closed = new Promise<void>((resolve) => leaver.once('close', () => resolve()))
  const answer = await fetch(`http://127.0.0.1:${door.broker.ports.management}/api/v5/clients/leaver%40x.org`, {
    method: 'DELETE',
    headers: { authorization: `Basic ${Buffer.from('ares:s3cret').toString('base64')}` },
  })
  expect(answer.status).toBe(204)
  await closed
  const again = inside(await person('leaver@x.org'))
  expect(await isCutOff(again, (answered) => again.subscribe(`ares4/${OWN}/telemetry`, answered))).toBe(true)
})

it('every refusal and every connection is in the audit', async () => {
  await until(() => door.api.admissions.some(({ reason }) => reason === 'role_too_low'), 'the audit')
  expect(door.api.admissions).toContainEqual(
    expect.objectContaining({
      reason: 'role_too_low',
      rule: 'user may publish ares4/{deviceId}/commands/+',
      className: 'user',
      subjectId: 'id-of-viewer@x.org',
      topic: `ares4/${OWN}/commands/1`,
    }),
  )
  expect(door.api.admissions).toContainEqual(
    expect.objectContaining({ reason: 'allowed', className: 'device', subjectId: OWN, zone: 'devices' }),
  )
})
