import { deviceCommonName, subjectOf } from './identity'
import { parseDeviceTopic, topics } from './topics'

describe('subjectOf', () => {
  it('reads a device and a service', () => {
    expect(subjectOf(deviceCommonName('0190-abc'))).toEqual({ kind: 'device', deviceId: '0190-abc' })
    expect(subjectOf('listener.service.ares4.internal')).toEqual({ kind: 'service', service: 'listener' })
  })

  it.each([
    '',
    'device.ares4.internal',
    '.device.ares4.internal',
    'a.b.device.ares4.internal',
    'DEV-1.device.ares4.internal',
    'gerät.device.ares4.internal',
    'dev.device.ares4.internal.',
    'good.device.ares4.internal,evil.device.ares4.internal',
    `${'a'.repeat(64)}.device.ares4.internal`,
    'root.service.ares4.internal',
    'x.device.ares4.internal.evil.com',
  ])('takes %p for nobody', (name) => {
    expect(subjectOf(name)).toBeUndefined()
  })
})

describe('parseDeviceTopic', () => {
  it('reads what the builders write', () => {
    expect(parseDeviceTopic(topics.telemetry('d1'))).toEqual({ kind: 'telemetry', deviceId: 'd1' })
    expect(parseDeviceTopic(topics.status('d1'))).toEqual({ kind: 'status', deviceId: 'd1' })
    expect(parseDeviceTopic(topics.response('d1', 'c1'))).toEqual({ kind: 'response', deviceId: 'd1', commandId: 'c1' })
    expect(parseDeviceTopic(topics.certificateRequest('d1'))).toEqual({ kind: 'certificateRequest', deviceId: 'd1' })
  })

  it.each(['ares4/d1/commands/c1', 'ares4//telemetry', 'other/d1/telemetry', 'ares4/d1/telemetry/json/x', 'ares4/d1'])(
    'does not take %p',
    (topic) => {
      expect(parseDeviceTopic(topic)).toBeUndefined()
    },
  )
})
