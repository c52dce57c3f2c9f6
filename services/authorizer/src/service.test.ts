import { request } from 'node:https'
import { Writable } from 'node:stream'
import { createLogger } from '@ares/chassis'
import { TestAuthority, TestIdentity, type TestLeaf, until } from '@ares/chassis/testing'
import { AuthorizerService } from './service'
import { TestApi } from './testing/test-api'
import { change, deviceEntry, revokedEntry, snapshot } from './testing/test-directory'

const LOOPBACK = { host: '127.0.0.1', port: 0 }

describe('the authorizer', () => {
  let ca: TestAuthority
  let broker: TestLeaf
  let device: TestLeaf
  let api: TestApi
  let service: AuthorizerService
  const lines: Record<string, unknown>[] = []

  beforeAll(async () => {
    ca = await TestAuthority.create()
    broker = await ca.leaf('broker.ares4.internal')
    device = await ca.leaf('d1.device.ares4.internal')
    api = await TestApi.start(new TestIdentity(await ca.leaf('api.service.ares4.internal')), () => {})
    const stream = new Writable({
      write(chunk, _, done) {
        for (const line of String(chunk).trim().split('\n')) lines.push(JSON.parse(line))
        done()
      },
    })
    service = await AuthorizerService.create(
      {
        logLevel: 'info',
        opsBind: LOOPBACK,
        webhookBind: LOOPBACK,
        grpcBind: LOOPBACK,
        apiAddress: `127.0.0.1:${api.port}`,
        vaultAddress: 'http://127.0.0.1:1',
        vaultCaFile: undefined,
        vaultCredentials: 'parent',
        caFile: 'unused',
        directoryOldAfterMs: 60_000,
        refuseWhenOld: false,
      },
      {
        identity: new TestIdentity(await ca.leaf('authorizer.service.ares4.internal')),
        logger: createLogger({ service: 'authorizer', level: 'debug', stream }),
      },
    )
    await service.start()
  })

  afterAll(async () => {
    await service.stop()
    await api.stop()
  })

  const authn = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify({
        clientid: 'd1',
        username: device.commonName,
        password: 'a-password-that-must-not-be-logged',
        peerhost: '127.0.0.1',
        cert_common_name: device.commonName,
        cert_pem: device.der,
        zone: 'devices',
      })
      const asked = request(
        {
          ...LOOPBACK,
          port: service.ports.webhook,
          path: '/mqtt/authn',
          method: 'POST',
          agent: false,
          ca: ca.caPem,
          cert: broker.chainPem,
          key: broker.keyPem,
          servername: 'authorizer.service.ares4.internal',
          headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        },
        (response) => {
          let text = ''
          response.on('data', (part) => {
            text += part
          })
          response.on('end', () => resolve(JSON.parse(text).result))
        },
      )
      asked.on('error', reject)
      asked.end(body)
    })

  const ops = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${service.ports.ops}${path}`)
    return { status: response.status, text: await response.text() }
  }

  const lastReason = () => lines.filter((line) => String(line.message).startsWith('connection ')).at(-1)?.reason

  it('says where it serves, denies everybody and is not ready before the first snapshot', async () => {
    expect(lines.find((line) => line.message === 'ready')?.ports).toEqual(service.ports)
    expect(await authn()).toBe('deny')
    expect(lastReason()).toBe('no_directory')
    expect((await ops('/health/live')).status).toBe(200)
    const ready = await ops('/health/ready')
    expect(ready.status).toBe(503)
    expect(ready.text).toContain('no snapshot of the directory yet')
    expect((await ops('/metrics')).text).toMatch(/ares_authorizer_directory_age_seconds\{[^}]*\} -1/)
  })

  it('lets a device in once it is known, and logs who, on what ground and how old that was', async () => {
    await until(() => api.calls.length > 0, 'the stream')
    for (const event of snapshot([deviceEntry('d1', [device.serialBytes])])) api.lastCall.write(event)
    await until(() => lines.some((line) => line.message === 'directory loaded'), 'the snapshot')
    expect(await authn()).toBe('allow')
    expect((await ops('/health/ready')).status).toBe(200)
    expect(lines.find((line) => line.message === 'connection allowed')).toMatchObject({
      level: 'debug',
      who: 'device d1',
      clientId: 'd1',
      zone: 'devices',
      directoryVersion: '1',
      expireAt: Math.floor(device.notAfter.getTime() / 1_000),
    })
    await until(() => api.admissions.some(({ reason }) => reason === 'allowed'), 'the connection in the audit')
    expect(api.admissions.find(({ reason }) => reason === 'allowed')).toMatchObject({
      className: 'device',
      subjectId: 'd1',
      clientId: 'd1',
      certificateSerial: device.serialBytes,
      peerAddress: '127.0.0.1',
      zone: 'devices',
    })
    expect(JSON.stringify(lines)).not.toContain('must-not-be-logged')
    expect(JSON.stringify(lines)).not.toContain(device.der)
  })

  it('denies as soon as a change says so', async () => {
    api.lastCall.write(change(2n, deviceEntry('d1', [device.serialBytes]), revokedEntry(device.serialBytes, 'd1')))
    for (let i = 0; i < 100 && (await authn()) === 'allow'; i++) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(await authn()).toBe('deny')
    expect(lastReason()).toBe('certificate_revoked')
    expect((await ops('/metrics')).text).toMatch(
      /ares_authorizer_decisions_total\{[^}]*hook="authn",result="deny",reason="certificate_revoked"[^}]*\} \d/,
    )
  })

  it('goes on answering while api is away, and stays ready', async () => {
    await api.stop()
    await until(
      () => lines.some((line) => line.message === 'the directory stream is gone; answering from what is known'),
      'the end of the stream',
    )
    expect(await authn()).toBe('deny')
    expect(lastReason()).toBe('certificate_revoked')
    expect((await ops('/health/ready')).status).toBe(200)
  })
})
