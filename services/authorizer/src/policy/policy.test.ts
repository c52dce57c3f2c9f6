import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ActionRequest, decideAction } from '../decision/authz'
import { DirectoryTables } from '../replica/directory'
import { deviceEntry } from '../testing/test-directory'
import { ACCESS_PAGE, accessPage } from './access-page'
import { type AclRule, aclOf } from './acl'
import { POLICY } from './policy'

const rulesOf = (...of: Parameters<typeof aclOf>): AclRule[] => JSON.parse(aclOf(...of))

/** How EMQX 5.8 reads the `acl`: the first rule whose action, QoS, retain and topic fit; a filter is matched like a topic. */
function emqxSays(acl: readonly AclRule[], action: string, topic: string, qos: number, retain: boolean): boolean {
  const rule = acl.find(
    (each) =>
      (each.action === 'all' || each.action === action) &&
      (each.qos === undefined || each.qos.some((allowed) => allowed === qos)) &&
      (each.retain === undefined || each.retain === retain) &&
      (each.topic.startsWith('eq ') ? each.topic.slice(3) === topic : emqxMatches(each.topic, topic)),
  )
  return rule?.permission === 'allow'
}

function emqxMatches(rule: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(rule)) return false
  const [words, names] = [rule.split('/'), topic.split('/')]
  for (const [i, word] of words.entries()) {
    if (word === '#') return true
    if (i >= names.length || (word !== '+' && word !== names[i])) return false
  }
  return words.length === names.length
}

const WORDS = ['ares4', 'd1', 'd2', 'listeners', '+', '#', '', 'x']
const BRANCHES = [
  'telemetry',
  'status',
  'responses',
  'commands',
  'receipts',
  'errors',
  'certificate',
  'request',
  'response',
]

function* filters(): Generator<string> {
  const third = [...WORDS, ...BRANCHES]
  for (const a of ['ares4', 'ares4-services', '+', '#', '$SYS', '']) {
    yield a
    for (const b of WORDS) {
      yield `${a}/${b}`
      for (const c of third) {
        yield `${a}/${b}/${c}`
        for (const d of [...WORDS, 'request', 'response']) {
          yield `${a}/${b}/${c}/${d}`
          for (const e of ['x', '+', '#', '']) yield `${a}/${b}/${c}/${d}/${e}`
        }
      }
    }
  }
}

const tables = new DirectoryTables()
tables.apply(deviceEntry('d1', [Buffer.from([1])]))
const knowledge = { directory: tables, version: 1n, ageMs: 0 }

describe('the acl of an authn answer', () => {
  it.each([
    ['device', 'd1.device.ares4.internal', 'd1', rulesOf('device', 'd1')],
    ['listener', 'listener.service.ares4.internal', 'ares4-mqtt-listener-0123abcd', rulesOf('listener')],
    ['server', 'api.service.ares4.internal', 'ares-server-v2-0123abcd', rulesOf('server')],
  ])('gives a %s, read by EMQX, exactly what /mqtt/authz gives it', (_, commonName, clientId, acl) => {
    const differs: string[] = []
    let allowed = 0
    for (const topic of filters()) {
      const wellFormed = topic !== '' && !topic.split('/').slice(0, -1).includes('#')
      for (const action of ['publish', 'subscribe'] as const) {
        if (!wellFormed || (action === 'publish' && /[+#]/.test(topic))) continue
        for (const qos of [0, 1, 2] as const) {
          for (const retain of action === 'publish' ? [false, true] : [false]) {
            const ours = decideAction(
              {
                clientid: clientId,
                username: commonName,
                peerhost: '127.0.0.1',
                cert_common_name: commonName,
                topic,
                action,
                qos: String(qos) as ActionRequest['qos'],
                retain: String(retain) as ActionRequest['retain'],
              },
              knowledge,
            )
            if (ours.result === 'allow') allowed += 1
            if (emqxSays(acl, action, topic, qos, retain) !== (ours.result === 'allow')) {
              differs.push(`${action} ${topic} qos ${qos} retain ${retain}: ${ours.result}`)
            }
          }
        }
      }
    }
    expect(differs).toEqual([])
    expect(allowed).toBeGreaterThan(3)
  })

  it('has the telemetry rule first and ends with a denial of everything', () => {
    const acl = rulesOf('device', 'd1')
    expect(acl[0]).toEqual({
      permission: 'allow',
      action: 'publish',
      topic: 'ares4/d1/telemetry',
      qos: [0, 1],
      retain: false,
    })
    expect(acl.at(-1)).toEqual({ permission: 'deny', action: 'all', topic: '#' })
  })

  it('gives the listener nothing with # and no subscription but those it has', () => {
    const subscriptions = rulesOf('listener').filter((rule) => rule.action === 'subscribe')
    expect(subscriptions.map((rule) => rule.topic)).toEqual([
      'eq ares4/+/telemetry',
      'eq ares4/+/telemetry/+',
      'eq ares4/+/status',
      'eq ares4/+/responses/+',
      'eq ares4/+/certificate/request',
      'eq ares4-services/listeners/+',
    ])
    expect(rulesOf('listener').filter((rule) => rule.permission === 'allow' && rule.topic.includes('#'))).toEqual([])
  })

  it('allows no QoS 2 to anybody', () => {
    for (const { permissions } of Object.values(POLICY)) {
      for (const permission of permissions) expect(permission.qos).not.toContain(2)
    }
  })
})

describe('the page', () => {
  it('shows the policy as it is (npm run generate writes it)', () => {
    expect(readFileSync(join(__dirname, '../../../..', ACCESS_PAGE), 'utf8')).toBe(accessPage())
  })
})
