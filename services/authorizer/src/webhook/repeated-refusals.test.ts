import type { ConnectDecision, ConnectRequest } from '../decision/authn'
import { RepeatedRefusals } from './repeated-refusals'

const request = (given: Partial<ConnectRequest> = {}): ConnectRequest => ({
  clientid: 'd1',
  username: 'd1',
  password: '',
  peerhost: '10.0.0.1',
  cert_common_name: 'd1.device.ares4.internal',
  cert_pem: 'MII-bad',
  zone: 'devices',
  ...given,
})

const refusal = (reason: ConnectDecision['reason'] = 'certificate_revoked'): ConnectDecision => ({
  result: 'deny',
  reason,
  directoryVersion: 7n,
})

let refusals: RepeatedRefusals
beforeEach(() => {
  refusals = new RepeatedRefusals({ from: 3, longestMs: 30_000, most: 100 })
})

const refuse = (times: number, given: Partial<ConnectRequest> = {}, decision = refusal(), nowMs = 0) => {
  for (let i = 0; i < times; i++) refusals.note(request(given), decision, nowMs)
}

it('decides the first few times, then answers the same from memory, and counts that', () => {
  refuse(2)
  expect(refusals.recall(request(), 7n, 0)).toBeUndefined()
  refuse(1)
  expect(refusals.recall(request(), 7n, 0)).toMatchObject({ result: 'deny', reason: 'certificate_revoked' })
  expect(refusals.fromMemory).toBe(1)
})

it('decides anew after a time that doubles, up to a limit', () => {
  refuse(3)
  expect(refusals.recall(request(), 7n, 999)).toBeDefined()
  expect(refusals.recall(request(), 7n, 1_000)).toBeUndefined()
  refuse(1)
  expect(refusals.recall(request(), 7n, 1_999)).toBeDefined()
  refuse(100)
  expect(refusals.recall(request(), 7n, 29_999)).toBeDefined()
  expect(refusals.recall(request(), 7n, 30_000)).toBeUndefined()
})

it.each([
  ['the same device with its good certificate', { cert_pem: 'MII-good' }],
  ['another device at the same address', { clientid: 'd2', cert_common_name: 'd2.device.ares4.internal' }],
  ['the same person with another token', { username: 'a@x.org', password: 'good' }],
  ['the same from another address', { peerhost: '10.0.0.2' }],
])('locks out nobody else: not %s', (_what, given) => {
  refuse(50)
  refuse(50, { username: 'a@x.org', password: 'bad' })
  expect(refusals.recall(request(given), 7n, 0)).toBeUndefined()
})

it('lets in at once who is made known meanwhile', () => {
  refuse(50)
  expect(refusals.recall(request(), 8n, 0)).toBeUndefined()
})

it('forgets everything with one connection that is allowed', () => {
  refuse(50)
  refusals.note(request(), { result: 'allow', reason: 'allowed' }, 0)
  expect(refusals.recall(request(), 7n, 0)).toBeUndefined()
})

it('does not hold against a client what is not its doing', () => {
  refuse(50, {}, refusal('no_directory'))
  expect(refusals.recall(request(), 7n, 0)).toBeUndefined()
})

it('does not grow: beyond the limit it forgets who was quiet for longest', () => {
  for (let i = 0; i < 300; i++) refuse(3, { clientid: `d${i}` })
  expect(refusals.recall(request({ clientid: 'd0' }), 7n, 0)).toBeUndefined()
  expect(refusals.recall(request({ clientid: 'd299' }), 7n, 0)).toBeDefined()
})
