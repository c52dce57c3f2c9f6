import { TestIdentity, type TestLeaf, until } from '@ares/chassis/testing'
import { Role } from '@ares/proto/directory/v1/directory'
import type { MqttClient } from 'mqtt'
import { Door, inside, isCutOff, NOT_AUTHORIZED } from './testing/door'
import { startSickServer } from './testing/sick-server'
import { TestApi } from './testing/test-api'
import {
  change,
  deviceEntry,
  inSeconds,
  revokedEntry,
  snapshot,
  TestSessions,
  userEntry,
} from './testing/test-directory'

/** The lines of docs/when-the-authorizer-fails.md: in no case more than what was allowed before. */

const KNOWN = 'd1'
const REVOKED = 'd2'
const DISABLED = 'd3'
const NEW = 'd4'
const PERSON = 'viewer@x.org'

let door: Door
let leaves: Record<string, TestLeaf>
const sessions = new TestSessions()

const directory = () => [
  sessions.entry(),
  deviceEntry(KNOWN, [leaves[KNOWN]!.serialBytes]),
  deviceEntry(REVOKED, [leaves[REVOKED]!.serialBytes]),
  revokedEntry(leaves[REVOKED]!.serialBytes, REVOKED),
  deviceEntry(DISABLED, [leaves[DISABLED]!.serialBytes], { active: false }),
  userEntry(PERSON, { 'org-1': Role.ROLE_VIEWER }),
]

beforeEach(async () => {
  door = await Door.open('500ms')
  leaves = Object.fromEntries(
    await Promise.all(
      [KNOWN, REVOKED, DISABLED, NEW].map(
        async (id) => [id, await door.ca.leaf(`${id}.device.ares4.internal`)] as const,
      ),
    ),
  )
}, 30_000)
afterEach(() => door?.close(), 30_000)

const device = (id: string) => door.connectDevice(leaves[id]!, id)
const person = () => door.connectPerson(PERSON, sessions.token({ sub: `id-of-${PERSON}`, exp: inSeconds(60) }))

/** A device and a person who came in while all was well; the person follows one topic. */
async function twoInside(): Promise<{ readonly sensor: MqttClient; readonly viewer: MqttClient; seen: () => number }> {
  await door.startAuthorizer()
  await door.tell(directory())
  const sensor = inside(await device(KNOWN))
  const viewer = inside(await person())
  let seen = 0
  viewer.on('message', () => {
    seen += 1
  })
  await viewer.subscribeAsync(`ares4/${KNOWN}/telemetry`, { qos: 1 })
  return { sensor, viewer, seen: () => seen }
}

/** What holds whatever becomes of the authorizer: who is in goes on with what he was granted, and with no more. */
async function expectNoMoreThanBefore({ sensor, viewer, seen }: Awaited<ReturnType<typeof twoInside>>): Promise<void> {
  await sensor.publishAsync(`ares4/${KNOWN}/telemetry`, '{}', { qos: 1 })
  await until(() => seen() === 1, 'the report')
  expect(await isCutOff(viewer, (answered) => viewer.subscribe(`ares4/${DISABLED}/telemetry`, answered))).toBe(true)
  expect(await isCutOff(sensor, (answered) => sensor.publish(`ares4/${NEW}/telemetry`, '', { qos: 1 }, answered))).toBe(
    true,
  )
}

async function expectNobodyComesIn(): Promise<void> {
  for (const id of [KNOWN, REVOKED, DISABLED, NEW]) expect([id, await device(id)]).toEqual([id, NOT_AUTHORIZED])
  expect(await person()).toBe(NOT_AUTHORIZED)
}

async function expectOnlyTheKnownComeIn(): Promise<void> {
  inside(await device(KNOWN))
  inside(await person())
  for (const id of [REVOKED, DISABLED, NEW]) expect([id, await device(id)]).toEqual([id, NOT_AUTHORIZED])
}

it.each(['closed', 'hung'] as const)(
  'authorizer %s: nobody comes in; who is in goes on with what was granted; it heals by itself',
  async (state) => {
    const before = await twoInside()
    door.gate.turn(state)
    await expectNobodyComesIn()
    await expectNoMoreThanBefore(before)
    door.gate.turn('open')
    await expectOnlyTheKnownComeIn()
  },
)

it('authorizer slow, but within the time of a request: all as ever, later', async () => {
  const { sensor } = await twoInside()
  door.gate.delayMs = 60
  door.gate.turn('slow')
  await expectOnlyTheKnownComeIn()
  const [granted] = await inside(await person()).subscribeAsync(`ares4/${KNOWN}/status`, { qos: 1 })
  expect(granted?.qos).toBe(1)
  expect(sensor.connected).toBe(false) // the same client id came in above, and takes the session over
})

it('authorizer slower than the time of a request: nobody comes in', async () => {
  const before = await twoInside()
  door.gate.delayMs = 3_000
  door.gate.turn('slow')
  await expectNobodyComesIn()
  await expectNoMoreThanBefore(before)
})

it.each([
  ['status 500', { status: 500, body: '{"result":"allow"}' }],
  ['status 403 with allow in it', { status: 403, body: '{"result":"allow"}' }],
  ['an empty answer', { status: 200, body: '' }],
  ['broken JSON', { status: 200, body: '{"result":"allow"' }],
  ['another type', { status: 200, type: 'text/html', body: '{"result":"allow"}' }],
  ['another word', { status: 200, body: '{"result":"yes"}' }],
])(
  'authorizer sick, it answers with %s: nobody comes in; who is in goes on with what was granted',
  async (_, answer) => {
    const before = await twoInside()
    const sick = await startSickServer(await door.ca.leaf('authorizer.service.ares4.internal'))
    try {
      sick.answer = answer
      door.gate.turn('open', sick.port)
      await expectNobodyComesIn()
      await expectNoMoreThanBefore(before)
    } finally {
      await sick.stop()
    }
  },
)

it('somebody else answers in its place, under a certificate of another name: nobody comes in', async () => {
  const before = await twoInside()
  const other = await startSickServer(await door.ca.leaf('listener.service.ares4.internal'))
  try {
    other.answer = { status: 200, body: '{"result":"allow","is_superuser":true}' }
    door.gate.turn('open', other.port)
    await expectNobodyComesIn()
    await expectNoMoreThanBefore(before)
  } finally {
    await other.stop()
  }
})

it('authorizer killed and started anew: nobody comes in before the directory is there', async () => {
  const before = await twoInside()
  await door.authorizer?.stop()
  await door.startAuthorizer()
  await expectNobodyComesIn()
  await expectNoMoreThanBefore(before)
  await door.tell(directory(), 2n)
  await expectOnlyTheKnownComeIn()
})

it('api away for an hour: the authorizer decides from what it knows, new topics as well, and says how old that is', async () => {
  const { viewer, sensor } = await twoInside()
  await door.api.stop()
  door.aheadMs = 3_600_000
  const [granted] = await viewer.subscribeAsync(`ares4/${KNOWN}/status`, { qos: 1 })
  expect(granted?.qos).toBe(1)
  expect(await isCutOff(viewer, (answered) => viewer.subscribe(`ares4/${NEW}/telemetry`, answered))).toBe(true)
  expect(await isCutOff(sensor, (answered) => sensor.publish(`ares4/${NEW}/telemetry`, '', { qos: 1 }, answered))).toBe(
    true,
  )
  await expectOnlyTheKnownComeIn()
  const ops = `http://127.0.0.1:${door.authorizer?.ports.ops}`
  const metrics = await (await fetch(`${ops}/metrics`)).text()
  expect(Number(/^ares_authorizer_directory_age_seconds\S* (\S+)$/m.exec(metrics)?.[1])).toBeGreaterThanOrEqual(3_600)
  const ready = await fetch(`${ops}/health/ready`)
  expect(ready.status).toBe(200)
  expect(await ready.text()).toContain('api is not heard')
})

it('api away for an hour, and told to refuse before that: nobody comes in, who is in goes on', async () => {
  await door.startAuthorizer({ refuseWhenOld: true, directoryOldAfterMs: 3_500_000 })
  await door.tell(directory())
  const sensor = inside(await device(KNOWN))
  const viewer = inside(await person())
  await door.api.stop()
  door.aheadMs = 3_600_000
  await expectNobodyComesIn()
  expect((await fetch(`http://127.0.0.1:${door.authorizer?.ports.ops}/health/ready`)).status).toBe(503)
  await sensor.publishAsync(`ares4/${KNOWN}/telemetry`, '{}', { qos: 1 })
  const [granted] = await viewer.subscribeAsync(`ares4/${KNOWN}/status`, { qos: 1 })
  expect(granted?.qos).toBe(1)
})

it('what happened while api was away is known as soon as it is back, and the refusals of that time are in the audit', async () => {
  await twoInside()
  const { port } = door.api
  await door.api.stop()
  expect(await device(NEW)).toBe(NOT_AUTHORIZED)
  const identity = new TestIdentity(await door.ca.leaf('api.service.ares4.internal'))
  door.api = await TestApi.start(identity, () => {}, port)
  await until(() => door.api.calls.length > 0, 'the stream')
  expect(door.api.lastCall.request).toMatchObject({ fromVersion: 1n, epoch: 'epoch-1' })
  door.api.lastCall.write(change(2n, deviceEntry(NEW, [leaves[NEW]!.serialBytes])))
  await door.known(2n)
  inside(await device(NEW))
  await until(() => door.api.admissions.some(({ reason }) => reason === 'device_unknown'), 'the refusal', 20_000)
})

it('stream cut in the middle of the first snapshot: nobody comes in', async () => {
  await door.startAuthorizer()
  const [begin, chunk] = [...snapshot(directory())]
  door.api.lastCall.write(begin!)
  door.api.lastCall.write(chunk!)
  await new Promise((resolve) => setTimeout(resolve, 200))
  const { length } = door.api.calls
  door.api.lastCall.end()
  await until(() => door.api.calls.length > length, 'the next stream')
  await expectNobodyComesIn()
  await door.tell(directory())
  await expectOnlyTheKnownComeIn()
})

it('stream cut in the middle of a later snapshot: decided from the one before, whole', async () => {
  await twoInside()
  const entries = [deviceEntry(NEW, [leaves[NEW]!.serialBytes]), deviceEntry(REVOKED, [leaves[REVOKED]!.serialBytes])]
  const [begin, chunk] = [...snapshot(entries, { version: 9n, epoch: 'another' })]
  door.api.lastCall.write(begin!)
  door.api.lastCall.write(chunk!)
  await new Promise((resolve) => setTimeout(resolve, 200))
  await expectOnlyTheKnownComeIn()
  const { length } = door.api.calls
  door.api.lastCall.end()
  await until(() => door.api.calls.length > length, 'the next stream')
  await expectOnlyTheKnownComeIn()
})
