import { Writable } from 'node:stream'
import { newKeyAndCsr } from './certificates'
import { createLogger } from './log'
import { withRequestId } from './request-id'

function capture(level?: string) {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const logger = createLogger({ service: 'listener', level, stream })
  return { logger, text: () => lines.join(''), last: () => JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown> }
}

describe('the log', () => {
  it('is one JSON object a line with service, level, message and the fields', () => {
    const { logger, last, text } = capture()
    logger.info('ready', { ports: { http: 1, ops: 2 } })
    expect(last()).toEqual({
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      level: 'info',
      service: 'listener',
      message: 'ready',
      ports: { http: 1, ops: 2 },
    })
    expect(text().trim().split('\n')).toHaveLength(1)
  })

  it('carries the id of the request', async () => {
    const { logger, last } = capture()
    await withRequestId('r-1', async () => {
      await Promise.resolve()
      logger.info('inside')
    })
    expect(last().requestId).toBe('r-1')
    logger.info('outside')
    expect(last()).not.toHaveProperty('requestId')
  })

  it('replaces a request id that could forge a line', () => {
    const { logger, last } = capture()
    withRequestId('x"\n{"level":"info"}', () => logger.info('a'))
    expect(last().requestId).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('hides values by the name of their field, at any depth', () => {
    const { logger, text } = capture()
    logger.info('login', {
      password: 'alpha-1',
      deep: [{ headers: { Authorization: 'beta-2', 'x-vault-token': 'gamma-3', 'set-cookie': ['delta-4'] } }],
      secretId: 'epsilon-5',
      unseal_keys: ['zeta-6'],
      map: new Map([['privateKey', 'eta-7']]),
    })
    expect(text()).not.toMatch(/alpha|beta|gamma|delta|epsilon|zeta|eta-7/)
    expect(text().match(/\[redacted\]/g)).toHaveLength(7)
  })

  it('leaves harmless fields alone', () => {
    const { logger, last } = capture()
    logger.info('x', { key: 'temperature', tokenPeriodSeconds: 3600, serial: '55:66', keyType: 'ec' })
    expect(last()).toMatchObject({ key: 'temperature', tokenPeriodSeconds: 3600, serial: '55:66', keyType: 'ec' })
  })

  it('hides secrets by their shape, in messages, fields and errors', async () => {
    const { logger, text } = capture()
    const { keyPem, csrPem } = await newKeyAndCsr('x.device.ares4.internal')
    const secrets = [
      keyPem.split('\n')[1] ?? '',
      's.AbCdEfGhIjKlMnOpQrStUvWx',
      'ares_enroll_0bZ3f-kQ2xV7pN_w1LrT5yHc8mD4sJ6uA9eG',
      'hvs.CAESIJ0123456789abcdefghijklmnop',
      'eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLWhlcmU',
      'hunter22',
    ]
    const said = [
      keyPem,
      `token ${secrets[1]} and ${secrets[2]}`,
      `Bearer ${secrets[3]}`,
      `postgresql://ares:${secrets[4]}@db/x`,
    ]
    for (const each of said) {
      logger.info(each)
      logger.info('field', { note: each, list: [each] })
      logger.info('error', { error: new Error(each, { cause: new Error(each) }) })
    }
    for (const secret of secrets) expect(text()).not.toContain(secret)
    logger.info(csrPem)
    expect(text()).toContain('BEGIN CERTIFICATE REQUEST')
  })

  it('hides a key whose end was cut off', () => {
    const { logger, text } = capture()
    logger.info(`-----BEGIN PRIVATE KEY-----\n${'QUJD'.repeat(5_000)}\n-----END PRIVATE KEY-----`)
    expect(text()).not.toContain('QUJD')
  })

  it('writes errors as name, message, code and stack, without what libraries hang on them', () => {
    const { logger, last, text } = capture()
    const error = Object.assign(new TypeError('broken'), { code: 'E_X', config: { headers: { auth: 'abc' } } })
    logger.error('failed', { error })
    expect(last().error).toEqual({
      name: 'TypeError',
      message: 'broken',
      code: 'E_X',
      stack: expect.stringContaining('log.test.ts'),
    })
    expect(text()).not.toContain('abc')
  })

  it('survives loops, deep and wide values, and stays small', () => {
    const { logger, text } = capture()
    const loop: Record<string, unknown> = { wide: Array.from({ length: 100_000 }, (_, i) => i), big: 10n }
    loop.self = loop
    loop.buffer = Buffer.alloc(1_000_000)
    loop.long = 'x'.repeat(1_000_000)
    logger.info('big', { loop })
    expect(text()).toContain('[circular]')
    expect(text()).toContain('[1000000 bytes]')
    expect(text().length).toBeLessThan(20_000)
  })

  it('keeps what is below its level to itself', () => {
    const { logger, text } = capture('warn')
    logger.info('no')
    logger.warn('yes')
    expect(text()).toContain('"yes"')
    expect(text()).not.toContain('"no"')
  })
})
