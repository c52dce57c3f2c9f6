import { Role } from '@ares/proto/directory/v1/directory'
import { DirectoryTables } from '../replica/directory'
import { deviceEntry, userEntry } from '../testing/test-directory'
import { type ActionRequest, decideAction } from './authz'

const tables = new DirectoryTables()
tables.apply(deviceEntry('d1', [Buffer.from([1])], { organizationId: 'org-1' }))
tables.apply(deviceEntry('d2', [Buffer.from([2])], { organizationId: 'org-2' }))
tables.apply(deviceEntry('d3', [Buffer.from([3])], { active: false }))
tables.apply(userEntry('viewer@example.org', { 'org-1': Role.ROLE_VIEWER }))
tables.apply(userEntry('operator@example.org', { 'org-1': Role.ROLE_OPERATOR, 'org-2': Role.ROLE_VIEWER }))
tables.apply(userEntry('owner@example.org', { 'org-1': Role.ROLE_OWNER }))
tables.apply(userEntry('odd@example.org', { 'org-1': 99 as Role, 'org-2': Role.ROLE_UNSPECIFIED }))
tables.apply(userEntry('off@example.org', { 'org-1': Role.ROLE_OWNER }, { active: false }))
const knowledge = { directory: tables, version: 3n, ageMs: 5 }

const action = (who: string, what: string, other: Partial<ActionRequest> = {}): ActionRequest => {
  const [verb, topic = ''] = what.split(' ')
  return {
    clientid: who,
    username: who,
    peerhost: '127.0.0.1',
    cert_common_name: who.includes('@') ? '' : `${who}.device.ares4.internal`,
    topic,
    action: verb === 'publish' ? 'publish' : 'subscribe',
    qos: '1',
    retain: 'false',
    ...other,
  }
}

describe('a device', () => {
  it.each([
    ['publish ares4/d1/telemetry', 'allowed'],
    ['publish ares4/d1/responses/c1', 'allowed'],
    ['subscribe ares4/d1/commands/+', 'allowed'],
    ['subscribe ares4/d1/commands/c1', 'allowed'],
    ['subscribe $share/g/ares4/d1/commands/+', 'allowed'],
    ['subscribe ares4/d1/commands/#', 'no_rule'],
    ['subscribe ares4/d1/#', 'no_rule'],
    ['subscribe #', 'no_rule'],
    ['subscribe $SYS/#', 'no_rule'],
    ['subscribe ares4/+/commands/+', 'no_rule'],
    ['subscribe ares4/d2/commands/+', 'no_rule'],
    ['subscribe ares4/d1/telemetry', 'no_rule'],
    ['publish ares4/d2/telemetry', 'no_rule'],
    ['publish ares4/d1/commands/c1', 'no_rule'],
    ['publish ares4/d1/+', 'topic_malformed'],
    ['publish $share/g/ares4/d1/telemetry', 'no_rule'],
    ['subscribe ares4/d1/commands/#/x', 'topic_malformed'],
  ])('%s: %s', (what, reason) => {
    expect(decideAction(action('d1', what), knowledge).reason).toBe(reason)
  })

  it('keeps the limits of QoS and retain', () => {
    const telemetry = 'publish ares4/d1/telemetry'
    const status = 'publish ares4/d1/status'
    expect(decideAction(action('d1', telemetry, { qos: '2' }), knowledge).reason).toBe('qos_too_high')
    expect(decideAction(action('d1', telemetry, { retain: 'true' }), knowledge).reason).toBe('retain_not_as_ruled')
    expect(decideAction(action('d1', status), knowledge).reason).toBe('retain_not_as_ruled')
    expect(decideAction(action('d1', status, { retain: 'true' }), knowledge)).toMatchObject({
      result: 'allow',
      rule: 'device may publish ares4/{deviceId}/status',
      directoryVersion: 3n,
      directoryAgeMs: 5,
    })
  })

  it('has no rights under another client id, when it is switched off, unknown, or without a directory', () => {
    const topic = 'publish ares4/d1/telemetry'
    expect(decideAction(action('d1', topic, { clientid: 'd2' }), knowledge).reason).toBe('wrong_client_id')
    expect(decideAction(action('d3', 'publish ares4/d3/telemetry'), knowledge).reason).toBe('device_disabled')
    expect(decideAction(action('d9', 'publish ares4/d9/telemetry'), knowledge).reason).toBe('device_unknown')
    expect(decideAction(action('d1', topic), undefined).reason).toBe('no_directory')
  })

  it('with two CNs, joined as the broker joins them, is nobody', () => {
    const cn = 'd1.device.ares4.internal,d1.device.ares4.internal'
    expect(decideAction(action('d1', 'publish ares4/d1/telemetry', { cert_common_name: cn }), knowledge).reason).toBe(
      'nobody',
    )
  })
})

describe('a person', () => {
  it.each([
    ['viewer', 'subscribe ares4/d1/telemetry', 'allowed'],
    ['viewer', 'subscribe ares4/d1/status', 'allowed'],
    ['viewer', 'subscribe ares4/d1/receipts', 'allowed'],
    ['viewer', 'subscribe ares4/d1/responses/+', 'role_too_low'],
    ['viewer', 'publish ares4/d1/commands/c1', 'role_too_low'],
    ['viewer', 'publish ares4/d1/telemetry', 'no_rule'],
    ['viewer', 'subscribe ares4/d2/telemetry', 'not_a_member'],
    ['viewer', 'subscribe ares4/+/telemetry', 'not_a_member'],
    ['viewer', 'subscribe ares4/#', 'not_a_member'],
    ['viewer', 'subscribe #', 'not_a_member'],
    ['viewer', 'subscribe ares4/d1/#', 'no_rule'],
    ['viewer', 'subscribe ares4/d1/commands/+', 'no_rule'],
    ['viewer', 'subscribe other/d1/telemetry', 'no_rule'],
    ['operator', 'publish ares4/d1/commands/c1', 'allowed'],
    ['operator', 'subscribe ares4/d1/responses/c1', 'allowed'],
    ['operator', 'publish ares4/d2/commands/c1', 'role_too_low'],
    ['operator', 'subscribe ares4/d2/telemetry', 'allowed'],
    ['owner', 'publish ares4/d1/commands/c1', 'allowed'],
    ['odd', 'subscribe ares4/d1/telemetry', 'role_too_low'],
    ['odd', 'subscribe ares4/d2/telemetry', 'role_too_low'],
    ['off', 'subscribe ares4/d1/telemetry', 'user_disabled'],
    ['nobody', 'subscribe ares4/d1/telemetry', 'user_unknown'],
  ])('who is %s: %s: %s', (who, what, reason) => {
    expect(decideAction(action(`${who}@example.org`, what), knowledge).reason).toBe(reason)
  })

  it('has no rights under the client id of a device, and none by a user name that was not verified', () => {
    const what = 'subscribe ares4/d1/telemetry'
    expect(decideAction(action('viewer@example.org', what, { clientid: 'd1' }), knowledge).reason).toBe(
      'wrong_client_id',
    )
    expect(decideAction(action('viewer@example.org', what, { username: '' }), knowledge).reason).toBe('user_unknown')
  })

  it('loses what a membership gave as soon as it is withdrawn', () => {
    const own = new DirectoryTables()
    own.apply(deviceEntry('d1', []))
    own.apply(userEntry('ann@example.org', { 'org-1': Role.ROLE_OWNER }))
    const request = action('ann@example.org', 'subscribe ares4/d1/telemetry')
    expect(decideAction(request, { ...knowledge, directory: own }).reason).toBe('allowed')
    own.apply(userEntry('ann@example.org', {}))
    expect(decideAction(request, { ...knowledge, directory: own }).reason).toBe('not_a_member')
  })
})
