import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { newKeyAndCsr, type VaultClient } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { addMember, furnish, startTestApi, type TestApi } from '../../testing/api'
import { ALLOWED_KEYS, csrFor, REFUSED_CSRS } from '../../testing/csrs'
import type { Pki } from './pki'
import { VaultPki } from './pki.vault'

describe('certificates of devices', () => {
  let vault: TestVault
  let client: VaultClient
  let api: TestApi
  let home: Awaited<ReturnType<typeof furnish>>
  /** Runs between Vault's answer and the database, when it is set. */
  let afterSigning: (() => Promise<void>) | undefined
  const withdrawn: string[] = []

  beforeAll(async () => {
    vault = await startTestVault()
    client = await vault.clientOf('api')
    const caPem = readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8')
    const real = new VaultPki(client, () => caPem)
    const pki: Pki = {
      async signDevice(csr, commonName) {
        const signed = await real.signDevice(csr, commonName)
        await afterSigning?.()
        return signed
      },
      async revoke(serial) {
        await real.revoke(serial)
        withdrawn.push(serial)
      },
    }
    api = await startTestApi({ pki })
    home = await furnish(api)
  }, 60_000)
  afterAll(async () => {
    await api?.stop()
    client?.close()
    await vault?.stop()
  })
  afterEach(() => {
    afterSigning = undefined
    withdrawn.length = 0
  })

  const newDevice = async (name: string) => {
    const body = { name, blueprintId: home.blueprint.id }
    const path = `/organizations/${home.organization.id}/devices`
    return (await api.call('post', path, { token: home.owner.token, body })).body
  }
  const order = (deviceId: string, csr: string, token = home.owner.token) =>
    api.call('post', `/devices/${deviceId}/certificates`, { token, body: { csr } })
  const csrOf = async (deviceId: string) => (await newKeyAndCsr(deviceCommonName(deviceId))).csrPem
  const versionOfDirectory = async () => (await api.context.database.prisma.directoryHead.findFirstOrThrow()).version

  it('are signed, written down with their owner, audited and told to the directory', async () => {
    const { id } = home.device
    const before = await versionOfDirectory()
    const { status, body } = await order(id, await csrOf(id))
    expect(status).toBe(201)
    const leaf = new X509Certificate(body.certificate)
    expect(leaf.subject).toBe(`CN=${deviceCommonName(id)}`)
    expect(body.fingerprint).toBe(leaf.fingerprint256.replaceAll(':', '').toLowerCase())
    expect(body.chain).toHaveLength(2)
    expect(leaf.verify(new X509Certificate(body.chain[0]).publicKey)).toBe(true)
    const root = new X509Certificate(body.chain[1])
    expect(root.verify(root.publicKey)).toBe(true)

    const { prisma } = api.context.database
    const row = await prisma.certificate.findUniqueOrThrow({ where: { serial: body.serial } })
    expect(row).toMatchObject({
      deviceId: id,
      state: 'active',
      requestedBy: home.owner.id,
      fingerprint: body.fingerprint,
    })
    expect(row.notAfter.toISOString()).toBe(body.expiresAt)
    const audit = await api.call('get', `/organizations/${home.organization.id}/audit`, { token: home.owner.token })
    expect(audit.body.items[0]).toMatchObject({
      action: 'certificate.issued',
      subjectId: id,
      detail: { serial: body.serial },
    })
    const change = await prisma.directoryChange.findFirstOrThrow({ orderBy: { version: 'desc' } })
    expect(change).toMatchObject({ kind: 'device', id, version: before + 1n })
    const list = await api.call('get', `/devices/${id}/certificates`, { token: home.owner.token })
    expect(list.body.items).toEqual([expect.objectContaining({ serial: body.serial, state: 'active' })])
  })

  it.each(ALLOWED_KEYS)('are signed by Vault for a key of %s', async (what, algorithm) => {
    const { id } = await newDevice(what)
    const { status, body } = await order(id, await csrFor(deviceCommonName(id), { algorithm }))
    expect(status).toBe(201)
    expect(new X509Certificate(body.certificate).subject).toBe(`CN=${deviceCommonName(id)}`)
  })

  it.each(REFUSED_CSRS.filter(([what]) => what !== 'that is empty'))(
    'are refused for a CSR %s as %s, and Vault is not even asked',
    async (_what, code, make) => {
      const { id } = home.device
      const before = await client.list('pki_int/certs')
      const answer = await order(id, await make(deviceCommonName(id)))
      expect([answer.status, answer.body.code, answer.body.errors[0].field]).toEqual([400, code, 'body.csr'])
      expect(await client.list('pki_int/certs')).toEqual(before)
    },
  )

  it('are not for viewers to order', async () => {
    const viewer = await addMember(api, home.organization.id, 'viewer')
    expect((await order(home.device.id, await csrOf(home.device.id), viewer.token)).status).toBe(403)
  })

  it('are not issued to a disabled device, and revoked when it was disabled meanwhile', async () => {
    const device = await newDevice('Disabled')
    const disable = async () => {
      await api.context.database.prisma.device.update({ where: { id: device.id }, data: { state: 'disabled' } })
    }
    afterSigning = disable
    const late = await order(device.id, await csrOf(device.id))
    expect([late.status, late.body.code]).toEqual([409, 'device_disabled'])
    expect(withdrawn).toHaveLength(1)
    const inVault = await client.read(`pki_int/cert/${withdrawn[0]}`)
    expect(inVault?.data.revocation_time).toBeGreaterThan(0)
    afterSigning = undefined
    expect((await order(device.id, await csrOf(device.id))).body.code).toBe('device_disabled')
    expect(withdrawn).toHaveLength(1)
  })

  it('are revoked when they cannot be written down, and nothing of them stays', async () => {
    const device = await newDevice('Unwritten')
    const { prisma, pool } = api.context.database
    await pool.query(`ALTER TABLE audit ADD CONSTRAINT no_issue CHECK (action <> 'certificate.issued') NOT VALID`)
    const { status, body } = await order(device.id, await csrOf(device.id)).finally(() =>
      pool.query('ALTER TABLE audit DROP CONSTRAINT no_issue'),
    )
    expect([status, body.code]).toEqual([500, 'internal'])
    expect(withdrawn).toHaveLength(1)
    expect(await prisma.certificate.count({ where: { deviceId: device.id } })).toBe(0)
  })

  it('are at most eight for a device', async () => {
    const device = await newDevice('Eight')
    const csrs = await Promise.all(Array.from({ length: 10 }, () => csrOf(device.id)))
    const answers = await Promise.all(csrs.map((csr) => order(device.id, csr)))
    const statuses = answers.map((answer) => answer.status).sort()
    expect(statuses).toEqual([201, 201, 201, 201, 201, 201, 201, 201, 409, 409])
    const { prisma } = api.context.database
    expect(await prisma.certificate.count({ where: { deviceId: device.id } })).toBe(8)
  })

  it('are not issued while Vault is away, and the problem says so', async () => {
    const device = await newDevice('Away')
    await vault.server.stop()
    const { status, body } = await order(device.id, await csrOf(device.id))
    expect([status, body.code, body.reason]).toEqual([503, 'pki_unavailable', 'unreachable'])
  })
})
