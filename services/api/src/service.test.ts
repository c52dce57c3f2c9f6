import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createGrpcClient, newKeyAndCsr, unary } from '@ares/chassis'
import { TestAuthority } from '@ares/chassis/testing'
import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { deviceCommonName } from '@ares/proto'
import { DeviceServiceClient } from '@ares/proto/devices/v1/devices'
import { issueWrappedSecretId } from '@ares/vault'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { readConfig } from './config'
import { type ApiPorts, ApiService } from './service'

describe('the service', () => {
  let vault: TestVault
  let database: TestDatabase
  let credentials: string
  let service: ApiService
  let ports: ApiPorts

  beforeAll(async () => {
    ;[vault, database] = await Promise.all([startTestVault(), createTestDatabase('empty')])
    credentials = await mkdtemp(join(tmpdir(), 'ares-api-'))
    const { roleId, wrapToken } = await issueWrappedSecretId(vault.adminClient, 'api')
    await writeFile(join(credentials, 'role-id'), roleId)
    await writeFile(join(credentials, 'wrapped-secret-id'), wrapToken)
    service = await ApiService.create(readConfig(environment()))
    ports = await service.start()
  }, 90_000)
  afterAll(async () => {
    await service?.stop()
    await database?.drop()
    await vault?.stop()
    await rm(credentials, { recursive: true, force: true })
  })

  const environment = () => ({
    ARES_LOG_LEVEL: 'error',
    ARES_OPS_BIND: '127.0.0.1:0',
    ARES_HTTP_BIND: '127.0.0.1:0',
    ARES_GRPC_BIND: '127.0.0.1:0',
    ARES_DATABASE_URL: database.url,
    ARES_VAULT_ADDR: vault.address,
    ARES_VAULT_CA_FILE: vault.caFile,
    ARES_VAULT_CREDENTIALS: credentials,
    ARES_CA_FILE: join(vault.certsDir, 'ca/full_chain_ca.crt'),
    ARES_FIRST_USER_EMAIL: 'root@example.org',
    ARES_FIRST_USER_PASSWORD: 'a long password',
  })
  const rest = async (method: string, path: string, body?: object, token?: string) => {
    const answer = await fetch(`http://127.0.0.1:${ports.http}/api/v1${path}`, {
      method,
      headers: { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    return (await answer.json()) as Record<string, string>
  }

  it('makes its tables, logs in at Vault, makes the first user and is ready', async () => {
    const ready = await fetch(`http://127.0.0.1:${ports.ops}/health/ready`)
    const { checks } = (await ready.json()) as { checks: object }
    expect([ready.status, Object.keys(checks)]).toEqual([
      200,
      expect.arrayContaining(['database', 'vault-token', 'certificate', 'started']),
    ])
  })

  it('takes a device from nothing to its certificate', async () => {
    const { accessToken } = await rest('POST', '/sessions', { email: 'root@example.org', password: 'a long password' })
    const post = (path: string, body: object) => rest('POST', path, body, accessToken)
    const organization = await post('/organizations', { name: 'Observatory' })
    const blueprint = await post(`/organizations/${organization.id}/blueprints`, { name: 'Station' })
    const device = await post(`/organizations/${organization.id}/devices`, { name: 'Roof', blueprintId: blueprint.id })
    const { csrPem } = await newKeyAndCsr(deviceCommonName(String(device.id)))
    const issued = await post(`/devices/${device.id}/certificates`, { csr: csrPem })
    expect(issued).toMatchObject({
      serial: expect.stringMatching(/^[0-9a-f]{2}(:[0-9a-f]{2})+$/),
      chain: [expect.any(String), expect.any(String)],
    })
  })

  it('lets nobody of another CA in over gRPC', async () => {
    const caPem = await readFile(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8')
    const stranger = await TestAuthority.create('Stranger')
    const leaf = await stranger.leaf('listener.service.ares4.internal')
    const client = createGrpcClient({
      client: DeviceServiceClient,
      address: `127.0.0.1:${ports.grpc}`,
      // It trusts our server; the server must not trust it.
      identity: { current: () => ({ ...leaf, caPem }), onRenewed: () => () => {} },
      serverName: 'api.service.ares4.internal',
    })
    await expect(unary(client, client.recordStatus, { statuses: [] }, { deadlineMs: 3_000 })).rejects.toMatchObject({
      code: 14,
    })
    client.close()
  })
})

describe('the settings', () => {
  it('switch the governor off', () => {
    const set = {
      ARES_DATABASE_URL: 'postgresql://localhost/ares',
      ARES_VAULT_ADDR: 'https://localhost:8200',
      ARES_VAULT_CREDENTIALS: 'parent',
      ARES_CA_FILE: '/ca.crt',
    }
    expect(readConfig(set).governor).toMatchObject({ floor: expect.any(Number) })
    expect(readConfig({ ...set, ARES_GOVERNOR: 'false' }).governor).toBeUndefined()
  })

  it.each(['29s', '31d', 'soon'])('take no life of %s for a device’s certificate', (life) => {
    expect(() => readConfig({ ARES_DEVICE_CERTIFICATE_LIFE: life })).toThrow(/ARES_DEVICE_CERTIFICATE_LIFE: must be/)
  })

  it('are refused with every problem at once', () => {
    let text = ''
    try {
      readConfig({ ARES_HTTP_BIND: 'nowhere', ARES_FIRST_USER_PASSWORD: 'short' })
    } catch (error) {
      text = String(error)
    }
    for (const name of [
      'ARES_HTTP_BIND',
      'ARES_FIRST_USER_PASSWORD',
      'ARES_DATABASE_URL',
      'ARES_VAULT_ADDR',
      'ARES_CA_FILE',
    ]) {
      expect(text).toContain(name)
    }
  })
})
