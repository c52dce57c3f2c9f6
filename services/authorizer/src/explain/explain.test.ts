import { createLogger, createMetrics } from '@ares/chassis'
import { TestAuthority, type TestLeaf } from '@ares/chassis/testing'
import { ExplainAction, type ExplainRequest } from '@ares/proto/directory/v1/access'
import { DeviceState, Role } from '@ares/proto/directory/v1/directory'
import { CertificateReader } from '../decision/certificate'
import { AdmissionJournal } from '../journal/admission-journal'
import { DirectoryReplica } from '../replica/directory-replica'
import { deviceEntry, inSeconds, revokedEntry, snapshot, TestSessions, userEntry } from '../testing/test-directory'
import { Admission } from '../webhook/admission'
import { AdmissionMetrics } from '../webhook/admission-metrics'
import { RefusalLog } from '../webhook/refusal-log'
import { explain } from './explain'
import { explainRpc } from './explain.rpc'

const { EXPLAIN_ACTION_CONNECT, EXPLAIN_ACTION_PUBLISH, EXPLAIN_ACTION_SUBSCRIBE } = ExplainAction
const DEVICES = ['good', 'bare', 'revoked', 'disabled', 'elsewhere', 'ended', 'unknown'] as const
const PEOPLE = ['viewer@x.org', 'operator@x.org', 'owner@x.org', 'off@x.org', 'stranger@x.org', 'nobody@x.org'] as const

let ca: TestAuthority
let leaves: Record<string, TestLeaf>
const sessions = new TestSessions()
const replica = new DirectoryReplica()
const journal = new AdmissionJournal()
const logger = createLogger({ service: 'test', level: 'silent' })
let admission: Admission

beforeAll(async () => {
  ca = await TestAuthority.create()
  const ended = { notBefore: new Date(Date.now() - 200_000), notAfter: new Date(Date.now() - 100_000) }
  leaves = Object.fromEntries(
    await Promise.all(
      DEVICES.map(async (id) => [id, await ca.leaf(`${id}.device.ares4.internal`, id === 'ended' ? ended : {})]),
    ),
  )
  const entries = [
    sessions.entry(),
    deviceEntry('good', [leaves.good!.serialBytes]),
    deviceEntry('bare', []),
    deviceEntry('revoked', [leaves.revoked!.serialBytes]),
    revokedEntry(leaves.revoked!.serialBytes, 'revoked'),
    deviceEntry('disabled', [leaves.disabled!.serialBytes], { active: false }),
    deviceEntry('elsewhere', [leaves.elsewhere!.serialBytes], { organizationId: 'org-2' }),
    deviceEntry('ended', [leaves.ended!.serialBytes]),
    userEntry('viewer@x.org', { 'org-1': Role.ROLE_VIEWER }),
    userEntry('operator@x.org', { 'org-1': Role.ROLE_OPERATOR, 'org-2': Role.ROLE_VIEWER }),
    userEntry('owner@x.org', { 'org-1': Role.ROLE_OWNER }),
    userEntry('off@x.org', { 'org-1': Role.ROLE_OWNER }, { active: false }),
    userEntry('stranger@x.org', {}),
  ]
  for (const event of snapshot(entries, { version: 7n })) replica.receive(event)
  admission = new Admission({
    replica,
    journal,
    logger,
    metrics: new AdmissionMetrics(createMetrics('test'), replica, journal),
    refusals: new RefusalLog(logger),
    rules: { certificates: new CertificateReader(ca.caPem) },
  })
})

const ACTIONS = ['publish', 'subscribe'].flatMap((action) =>
  [
    'ares4/good/telemetry',
    'ares4/good/commands/1',
    'ares4/good/commands/+',
    'ares4/good/commands/#',
    'ares4/good/#',
    'ares4/+/telemetry',
    'ares4/elsewhere/status',
    'ares4/elsewhere/commands/1',
    'ares4/bare/receipts',
    '$share/g/ares4/good/receipts',
    '#',
    'a#b',
  ].flatMap((topic) =>
    ['0', '2'].flatMap((qos) => ['true', 'false'].map((retain) => ({ action, topic, qos, retain }))),
  ),
)

type Wanted = (typeof ACTIONS)[number]

/** What a client gets at the webhooks for a connection and then, if it is in, for an action; as the journal has it. */
function decided(connection: object, who: object, wanted?: Wanted) {
  const connected = JSON.parse(admission.connect(Buffer.from(JSON.stringify(connection))))
  const [line] = journal.take(10)
  if (connected.result === 'deny' || !wanted) return { ...line, allowed: connected.result === 'allow' }
  const answer = JSON.parse(admission.action(Buffer.from(JSON.stringify({ ...who, ...wanted }))))
  return { ...journal.take(10)[0], allowed: answer.result === 'allow' }
}

const said = (who: ExplainRequest['who'], wanted?: Wanted) =>
  explain(
    {
      who,
      action: !wanted
        ? EXPLAIN_ACTION_CONNECT
        : wanted.action === 'publish'
          ? EXPLAIN_ACTION_PUBLISH
          : EXPLAIN_ACTION_SUBSCRIBE,
      topic: wanted?.topic ?? '',
      qos: Number(wanted?.qos ?? 0),
      retain: wanted?.retain === 'true',
    },
    replica.knowledge()!,
    Date.now(),
    {},
  )

/** A journal line has no word for an allowed action, so there only the answer is compared. */
const essence = (of: { allowed: boolean; reason?: string; rule?: string; className?: string; subjectId?: string }) =>
  of.allowed
    ? { allowed: true }
    : {
        allowed: false,
        reason: of.reason,
        rule: of.rule ?? '',
        className: of.className ?? '',
        subjectId: of.subjectId ?? '',
      }

describe('log and answer agree with what the webhooks decided', () => {
  it.each(DEVICES)('for the device "%s"', (id) => {
    const leaf = leaves[id]!
    const who = { clientid: id, username: leaf.commonName, peerhost: '10.0.0.1', cert_common_name: leaf.commonName }
    const connection = { ...who, password: '', cert_pem: leaf.der, zone: 'devices' }
    const certificate = { serial: leaf.serialBytes, notBefore: leaf.notBefore, notAfter: leaf.notAfter }
    for (const wanted of [undefined, ...ACTIONS]) {
      const answer = said({ $case: 'device', value: { deviceId: id, certificate } }, wanted)
      expect([wanted, essence(answer)]).toEqual([wanted, essence(decided(connection, who, wanted))])
    }
  })

  it.each(PEOPLE)('for the person %s', (email) => {
    const who = { clientid: email, username: email, peerhost: '10.0.0.1', cert_common_name: '' }
    const password = sessions.token({ sub: `id-of-${email}`, exp: inSeconds(60) })
    const connection = { ...who, password, cert_pem: '', zone: 'users' }
    for (const wanted of [undefined, ...ACTIONS]) {
      const answer = said({ $case: 'email', value: email }, wanted)
      expect([wanted, essence(answer)]).toEqual([wanted, essence(decided(connection, who, wanted))])
    }
  })
})

describe('an explanation', () => {
  const question = (given: Partial<ExplainRequest>): ExplainRequest => ({
    who: { $case: 'device', value: { deviceId: 'good', certificate: undefined } },
    action: EXPLAIN_ACTION_CONNECT,
    topic: '',
    qos: 0,
    retain: false,
    ...given,
  })

  it('says what was known, and how old that is', () => {
    const answer = explain(question({}), { ...replica.knowledge()!, ageMs: 1_234.5 }, Date.now(), {})
    expect(answer).toMatchObject({
      allowed: true,
      reason: 'allowed',
      className: 'device',
      subjectId: 'good',
      directoryVersion: 7n,
      directoryAgeMs: 1_235n,
      device: {
        id: 'good',
        organizationId: 'org-1',
        state: DeviceState.DEVICE_STATE_ACTIVE,
        certificateSerials: [leaves.good!.serialBytes],
      },
      user: undefined,
    })
  })

  it('names the rule that came nearest', () => {
    const who = { $case: 'email', value: 'viewer@x.org' } as const
    const topic = 'ares4/good/commands/1'
    expect(said(who, { action: 'publish', topic, qos: '1', retain: 'false' })).toMatchObject({
      allowed: false,
      reason: 'role_too_low',
      rule: 'user may publish ares4/{deviceId}/commands/+',
      user: { email: 'viewer@x.org', memberships: [{ organizationId: 'org-1', role: Role.ROLE_VIEWER }] },
      topicDevice: { id: 'good', organizationId: 'org-1' },
    })
  })

  it('takes the certificate that the directory has when none is given', () => {
    const without = (deviceId: string) => said({ $case: 'device', value: { deviceId, certificate: undefined } }).reason
    expect(without('good')).toBe('allowed')
    expect(without('bare')).toBe('certificate_missing')
    expect(without('revoked')).toBe('certificate_revoked')
  })

  it('says that a new connection is refused when the directory is too old, and that what is connected goes on', () => {
    const old = { ...replica.knowledge()!, ageMs: 60_001 }
    const rules = { refuseWhenOlderThanMs: 60_000 }
    expect(explain(question({}), old, Date.now(), rules).reason).toBe('directory_too_old')
    const action = question({ action: EXPLAIN_ACTION_PUBLISH, topic: 'ares4/good/telemetry' })
    expect(explain(action, old, Date.now(), rules).reason).toBe('allowed')
  })

  it('is not given without a directory, nor for half a question', async () => {
    const ask = (request: ExplainRequest, of = replica) =>
      new Promise((resolve, reject) =>
        explainRpc(of, {}).explain({ request } as never, (error, answer) => (error ? reject(error) : resolve(answer))),
      )
    await expect(ask(question({}), new DirectoryReplica())).rejects.toMatchObject({ code: 'no_directory' })
    for (const half of [{ who: undefined }, { action: 0 }, { qos: 3 }, { action: EXPLAIN_ACTION_PUBLISH }]) {
      await expect(ask(question(half))).rejects.toMatchObject({ code: 'invalid_question' })
    }
  })
})
