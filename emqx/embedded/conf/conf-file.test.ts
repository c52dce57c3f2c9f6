import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SslListenerConf, WebhookConf, WssListenerConf } from './broker-conf'
import { loadConf } from './conf-file'

const CONF = join(__dirname, '../../emqx.conf')

function variant(change: (text: string) => string): string {
  const file = join(mkdtempSync(join(tmpdir(), 'emqx-conf-')), 'emqx.conf')
  writeFileSync(file, change(readFileSync(CONF, 'utf8')))
  return file
}

describe('emqx.conf', () => {
  test('says nothing that the embedded broker does not honour or know to be for EMQX alone', async () => {
    await expect(loadConf(CONF, {})).resolves.toBeDefined()
  })

  test('has no plain port, and demands a certificate wherever devices and services come in', async () => {
    const { conf } = await loadConf(CONF, {})
    const off = [conf.listeners.tcp.default, conf.listeners.ssl.default, conf.listeners.ws.default]
    for (const listener of [...off, conf.listeners.wss.default]) expect(listener).toEqual({ enable: false })
    for (const name of ['devices', 'services']) {
      const { ssl_options } = conf.listeners.ssl[name] as SslListenerConf
      expect(ssl_options).toMatchObject({ verify: 'verify_peer', fail_if_no_peer_cert: true })
    }
  })

  test('fails closed: no match is a deny, a deny is seen, one authenticator, one source', async () => {
    const { conf } = await loadConf(CONF, {})
    expect(conf.authorization).toMatchObject({ no_match: 'deny', deny_action: 'disconnect' })
    expect(conf.authentication).toHaveLength(1)
    expect(conf.authorization.sources).toHaveLength(1)
  })

  test('asks the authorizer over TLS that verifies both ways, without pipelining', async () => {
    const { conf } = await loadConf(CONF, {})
    for (const hook of [...conf.authentication, ...conf.authorization.sources] as WebhookConf[]) {
      expect(hook.url).toMatch(/^https:/)
      expect(hook.enable_pipelining).toBe(1)
      expect(hook.ssl).toMatchObject({ enable: true, verify: 'verify_peer', certfile: expect.any(String) })
      expect(hook.headers).toEqual({ 'content-type': 'application/json' })
    }
  })

  test('sends the bodies that the authorizer expects', async () => {
    const { conf } = await loadConf(CONF, {})
    expect(Object.keys(conf.authentication[0]?.body ?? {}).sort()).toEqual(
      ['cert_common_name', 'cert_pem', 'clientid', 'password', 'peerhost', 'username', 'zone'].sort(),
    )
    expect(Object.keys(conf.authorization.sources[0]?.body ?? {}).sort()).toEqual(
      ['action', 'cert_common_name', 'clientid', 'peerhost', 'qos', 'retain', 'topic', 'username'].sort(),
    )
  })

  test('limits devices and not services, whose acknowledgements would count', async () => {
    const { conf } = await loadConf(CONF, {})
    const devices = conf.listeners.ssl.devices as SslListenerConf
    const services = conf.listeners.ssl.services as SslListenerConf
    const users = conf.listeners.wss.users as WssListenerConf
    expect(users.max_conn_rate).toBeLessThan(devices.max_conn_rate)
    for (const limit of [devices.messages_rate, devices.bytes_rate, devices.max_conn_rate]) {
      expect(limit).toBeLessThan(Number.POSITIVE_INFINITY)
    }
    expect(devices.limiter.messages.rate).toBe(8000)
    // A full window of 32 is through well within 1.5 keepalives, even of 5 s.
    expect(devices.messages_rate * 1.5 * 5).toBeGreaterThan(32 * 5)
    expect([services.messages_rate, services.limiter.messages.rate]).toEqual(Array(2).fill(Number.POSITIVE_INFINITY))
  })

  test('gives the services a queue for the stated outage, and never kills their session for its size', async () => {
    const loaded = await loadConf(CONF, {})
    const { max_mqueue_len, session_expiry_interval, max_inflight } = loaded.zone('services')
    expect(max_mqueue_len).toBeGreaterThanOrEqual((8000 / 2) * (session_expiry_interval / 1000))
    expect(max_inflight).toBe(8000)
    expect(loaded.conf.zones.services?.force_shutdown).toEqual({ enable: false })
  })

  test('counts connections by client id where a certificate is shown, and nowhere else', async () => {
    const { conf } = await loadConf(CONF, {})
    // Who is counted is banned everywhere, before anybody is asked who it is.
    for (const [name, zone] of Object.entries(conf.zones)) {
      expect([name, zone.flapping_detect]).toEqual([name, name === 'devices' ? undefined : { enable: false }])
    }
    expect(Object.keys(conf.zones).sort()).toEqual(['devices', 'services', 'users'])
  })

  test('a zone has its own settings over the global ones', async () => {
    const loaded = await loadConf(CONF, {})
    expect(loaded.zone('users').peer_cert_as_username).toBe('disabled')
    expect(loaded.zone('users').max_packet_size).toBe(1024 ** 2)
    expect(loaded.zone('devices').session_expiry_interval).toBe(7_200_000)
  })
})

describe('a configuration that cannot be honoured', () => {
  test.each([
    ['an unknown key of a webhook', 'connect_timeout = "2s",', 'conect_timeout = "2s",', /conect_timeout/],
    ['method = put', 'method = post,', 'method = put,', /method/],
    [
      'an https url without ssl',
      'enable = true, verify = verify_peer, server',
      'enable = false, server',
      /ssl\.enable/,
    ],
    ['another shared strategy', 'strategy = round_robin', 'strategy = sticky', /shared_subscription_strategy/],
    ['a misspelt section', 'retainer {', 'retainers {', /retainers/],
    ['a rate without a unit of time', 'messages_rate = "50/s"', 'messages_rate = "50"', /listeners\.ssl\.devices/],
    ['broken HOCON', 'listeners.ssl.devices {', 'listeners.ssl.devices {{', /no HOCON/],
  ])('is refused at the start: %s', async (_what, right, wrong, message) => {
    const file = variant((text) => text.replaceAll(right, wrong))
    await expect(loadConf(file, {})).rejects.toThrow(message)
  })

  test('is refused when the file is not there', async () => {
    await expect(loadConf('/nowhere/emqx.conf', {})).rejects.toThrow(/nowhere\/emqx\.conf cannot be read/)
  })
})

describe('EMQX_… variables', () => {
  test('lie over the file, list elements counted from 1', async () => {
    const { conf } = await loadConf(CONF, {
      EMQX_LISTENERS__SSL__DEVICES__BIND: '127.0.0.1:18883',
      EMQX_LISTENERS__SSL__DEVICES__LIMITER__MESSAGES__RATE: '100/s',
      EMQX_AUTHENTICATION__1__URL: 'https://localhost:1/authn',
      EMQX_AUTHENTICATION__1__POOL_SIZE: '4',
      EMQX_AUTHORIZATION__SOURCES__1__SSL__SERVER_NAME_INDICATION: 'localhost',
      EMQX_API_KEY__BOOTSTRAP_FILE: '"/secrets/api-keys"',
      EMQX_LISTENERS__SSL__DEVICES__SSL_OPTIONS__VERSIONS: '["tlsv1.3"]',
      EMQX_CONF: CONF,
      OTHER__THING: 'x',
    })
    const devices = conf.listeners.ssl.devices as SslListenerConf
    expect(devices.bind).toEqual({ host: '127.0.0.1', port: 18883 })
    expect(devices.limiter.messages.rate).toBe(100)
    expect(devices.ssl_options.versions).toEqual(['tlsv1.3'])
    expect(conf.authentication[0]).toMatchObject({ url: 'https://localhost:1/authn', pool_size: 4 })
    expect(conf.authorization.sources[0]?.ssl.server_name_indication).toBe('localhost')
    expect(conf.api_key.bootstrap_file).toBe('/secrets/api-keys')
  })

  test('an element that is not in the list is an error that names the variable', async () => {
    await expect(loadConf(CONF, { EMQX_AUTHENTICATION__2__URL: 'https://localhost' })).rejects.toThrow(
      /EMQX_AUTHENTICATION__2__URL/,
    )
  })

  test('a path that leads to an unknown key is an error', async () => {
    await expect(loadConf(CONF, { EMQX_LISTENERS__SSL__DEVICES__BINDS: '1' })).rejects.toThrow(
      /listeners\.ssl\.devices/,
    )
  })
})
