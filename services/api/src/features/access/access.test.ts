import { ExplainAction, type ExplainRequest, type ExplainResponse } from '@ares/proto/directory/v1/access'
import { DeviceState, Role } from '@ares/proto/directory/v1/directory'
import { AccessControl } from '../../http/access'
import { addMember, furnish, startTestApi, type TestApi, type TestPerson } from '../../testing/api'
import { explainBody } from './access.schema'
import { AccessService } from './access.service'
import { AccessStore } from './access.store'

let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let foreign: Awaited<ReturnType<typeof furnish>>
let viewer: TestPerson
let stranger: TestPerson
let service: AccessService
let asked: ExplainRequest[]
let answer: Partial<ExplainResponse>

beforeAll(async () => {
  api = await startTestApi()
  home = await furnish(api)
  foreign = await furnish(api)
  viewer = await addMember(api, home.organization.id, 'viewer')
  stranger = await api.person()
  const { pool } = api.context.database
  await pool.query(
    `INSERT INTO certificates (serial, device_id, fingerprint, not_before, not_after, state)
     VALUES ('0a:01', $1, repeat('aa', 32), now() - interval '2 days', now() - interval '1 day', 'active'),
            ('0a:02', $1, repeat('bb', 32), now(), now() + interval '1 day', 'active')`,
    [home.device.id],
  )
  service = new AccessService(new AccessStore(pool), new AccessControl(pool), {
    explain: async (request) => {
      asked.push(request)
      return { ...ALLOWED, ...answer }
    },
  })
})
afterAll(() => api?.stop())
beforeEach(() => {
  asked = []
  answer = {}
})

const explain = (person: TestPerson, who: string, given: object = {}) =>
  service.explain(
    { kind: 'user', id: person.id, email: person.email, sessionId: 's' },
    explainBody.parse({ who, action: 'connect', ...given }),
  )

const publish = (deviceId: string) => ({ action: 'publish', topic: `ares4/${deviceId}/commands/1` })

it('asks about a device with the newest certificate that is good', async () => {
  await explain(viewer, home.device.id)
  expect(asked).toMatchObject([
    {
      who: {
        $case: 'device',
        value: { deviceId: home.device.id, certificate: { serial: Buffer.from('0a02', 'hex') } },
      },
      action: ExplainAction.EXPLAIN_ACTION_CONNECT,
      topic: '',
    },
  ])
})

it('asks about a certificate by its serial number, written either way', async () => {
  await explain(viewer, '0A:01')
  await explain(viewer, '0a01')
  for (const { who } of asked) {
    expect(who).toMatchObject({
      value: { deviceId: home.device.id, certificate: { serial: Buffer.from('0a01', 'hex') } },
    })
  }
})

it('hands on action, topic, QoS and retain', async () => {
  await explain(viewer, home.device.id, { ...publish(home.device.id), qos: 2, retain: true })
  expect(asked).toMatchObject([{ action: ExplainAction.EXPLAIN_ACTION_PUBLISH, qos: 2, retain: true }])
})

it('shows the decision and what it was made from', async () => {
  answer = {
    allowed: false,
    reason: 'certificate_revoked',
    className: 'device',
    subjectId: home.device.id,
    certificateRevoked: true,
    device: {
      id: home.device.id,
      organizationId: home.organization.id,
      state: DeviceState.DEVICE_STATE_ACTIVE,
      certificateSerials: [Buffer.from('0a02', 'hex')],
    },
  }
  expect(await explain(viewer, '0a:02')).toMatchObject({
    decision: 'deny',
    reason: 'certificate_revoked',
    rule: null,
    subject: { className: 'device', id: home.device.id },
    known: {
      device: { id: home.device.id, state: 'active', certificateSerials: ['0a:02'] },
      certificate: { serial: '0a:02', revoked: true },
      user: null,
      directoryVersion: '7',
      directoryAgeMs: 12,
    },
  })
})

it.each([
  ['a device', () => home.device.id, 'device_not_found'],
  ['a certificate', () => '0a:02', 'certificate_not_found'],
  ['a certificate that is not there', () => 'ff:ff', 'certificate_not_found'],
  ['a person', () => home.owner.email, 'user_not_found'],
  ['a person who is not there', () => 'nobody@example.org', 'user_not_found'],
])('tells a stranger nothing about %s', async (_what, who, code) => {
  await expect(explain(stranger, who())).rejects.toMatchObject({ code })
  expect(asked).toEqual([])
})

it('is for owners when it is about another person, and for everybody about oneself', async () => {
  await expect(explain(viewer, home.owner.email)).rejects.toMatchObject({ code: 'user_not_found' })
  await explain(home.owner, viewer.email, publish(home.device.id))
  await explain(viewer, viewer.email)
  expect(asked).toMatchObject([
    { who: { $case: 'email', value: viewer.email } },
    { who: { $case: 'email', value: viewer.email } },
  ])
})

it("does not tell what a person may do elsewhere, nor the person's roles there", async () => {
  for (const prefix of ['', '$share/g/', '$queue/']) {
    const topic = `${prefix}ares4/${foreign.device.id}/telemetry`
    await expect(explain(home.owner, viewer.email, { action: 'subscribe', topic })).rejects.toMatchObject({
      code: 'device_not_found',
    })
  }
  const roles = [home, foreign].map(({ organization }) => ({
    organizationId: organization.id,
    role: Role.ROLE_VIEWER,
  }))
  answer = { user: { id: viewer.id, email: viewer.email, active: true, memberships: roles } }
  const { known } = await explain(home.owner, viewer.email)
  expect(known.user?.memberships).toEqual([{ organizationId: home.organization.id, role: 'viewer' }])
})

it('does not show a device of a stranger that a topic speaks of', async () => {
  answer = {
    topicDevice: {
      id: foreign.device.id,
      organizationId: foreign.organization.id,
      state: DeviceState.DEVICE_STATE_ACTIVE,
      certificateSerials: [],
    },
  }
  expect((await explain(viewer, home.device.id, publish(foreign.device.id))).known.topicDevice).toBeNull()
})

it('needs a topic to publish or subscribe, and a name that can be one', async () => {
  await expect(explain(viewer, home.device.id, { action: 'publish' })).rejects.toMatchObject({ code: 'topic_missing' })
  for (const who of ['', 'somebody', 'a b@c', '0a:0', '*']) {
    expect(explainBody.safeParse({ who, action: 'connect' }).success).toBe(false)
  }
})

it('says so when there is no authorizer to ask', async () => {
  const { status, body } = await api.call('post', '/access/explain', {
    token: viewer.token,
    body: { who: home.device.id, action: 'connect' },
  })
  expect([status, body.code]).toEqual([503, 'authorizer_unavailable'])
})

const ALLOWED: ExplainResponse = {
  allowed: true,
  reason: 'allowed',
  rule: '',
  className: '',
  subjectId: '',
  directoryVersion: 7n,
  directoryAgeMs: 12n,
  device: undefined,
  certificateRevoked: false,
  user: undefined,
  topicDevice: undefined,
}
