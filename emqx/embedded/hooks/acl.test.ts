// biome-ignore-all lint/suspicious/noTemplateCurlyInString: EMQX's placeholders look like that
import { Acl, type AclSubject, BadAclRule } from './acl'

const d1: AclSubject = { clientId: 'd1', username: 'd1.device.ares4.internal', commonName: 'd1.device.ares4.internal' }
const publish = (topic: string, qos = 1, retain = false) => ({ kind: 'publish' as const, topic, qos, retain })
const subscribe = (topic: string, qos = 1) => ({ kind: 'subscribe' as const, topic, qos, retain: false })
const allow = (action: string, topic: string, rest = {}) => ({ permission: 'allow', action, topic, ...rest })

describe('the acl of an authn answer', () => {
  test('is decided by the first rule that matches; without one it has no opinion', () => {
    const acl = Acl.read([allow('publish', 'a/b'), { permission: 'deny', action: 'all', topic: 'a/#' }], d1)
    expect(acl.decide(publish('a/b'))).toBe('allow')
    expect(acl.decide(subscribe('a/b'))).toBe('deny')
    expect(acl.decide(publish('b'))).toBeUndefined()
  })

  test.each([
    ['pub', 'allow', undefined],
    ['sub', undefined, 'allow'],
    ['all', 'allow', 'allow'],
  ])('action %s: publish %p, subscribe %p', (action, published, subscribed) => {
    const acl = Acl.read([allow(action, 't')], d1)
    expect(acl.decide(publish('t'))).toBe(published)
    expect(acl.decide(subscribe('t'))).toBe(subscribed)
  })

  test('limits QoS, and for a publish the retain flag', () => {
    const acl = Acl.read([allow('all', 't', { qos: [0, 1], retain: false })], d1)
    expect(acl.decide(publish('t', 1))).toBe('allow')
    expect(acl.decide(publish('t', 2))).toBeUndefined()
    expect(acl.decide(publish('t', 1, true))).toBeUndefined()
    expect(acl.decide(subscribe('t', 1))).toBe('allow')
  })

  test('fills in ${clientid} and ${username}, and takes "eq " literally', () => {
    const acl = Acl.read([allow('all', 'dev/${clientid}/${username}'), allow('subscribe', 'eq a/#')], d1)
    expect(acl.decide(publish('dev/d1/d1.device.ares4.internal'))).toBe('allow')
    expect(acl.decide(publish('dev/d2/d1.device.ares4.internal'))).toBeUndefined()
    expect(acl.decide(subscribe('a/#'))).toBe('allow')
    expect(acl.decide(subscribe('a/b'))).toBeUndefined()
  })

  test('a rule with a placeholder that has no value matches nothing', () => {
    const acl = Acl.read([allow('all', 'u/${username}')], { ...d1, username: undefined })
    expect(acl.decide(publish('u/'))).toBeUndefined()
  })

  test('lets dev/1/# through a rule dev/1/+, as EMQX does: it matches a filter as if it were a topic', () => {
    const acl = Acl.read([allow('subscribe', 'dev/1/+')], d1)
    expect(acl.decide(subscribe('dev/1/#'))).toBe('allow')
  })

  test('takes several topics in one rule', () => {
    const acl = Acl.read([{ permission: 'allow', action: 'all', topics: ['a', 'b'] }], d1)
    expect(acl.decide(publish('b'))).toBe('allow')
  })

  test.each([
    ['no object', 1],
    ['an unknown permission', { permission: 'maybe', action: 'all', topic: 't' }],
    ['an unknown action', { permission: 'allow', action: 'read', topic: 't' }],
    ['no topic', { permission: 'allow', action: 'all' }],
    ['an unknown QoS', allow('all', 't', { qos: [3] })],
    ['an unknown retain', allow('all', 't', { retain: 'maybe' })],
  ])('is refused for a rule with %s', (_what, rule) => {
    expect(() => Acl.read([rule], d1)).toThrow(BadAclRule)
  })
})
