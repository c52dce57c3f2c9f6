import { createLogger, createMetrics, newKeyAndCsr, type VaultClient, VaultError } from '@ares/chassis'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { newId } from '../../ids'
import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { AuditService } from '../audit/audit.service'
import { AuditStore } from '../audit/audit.store'
import { checkCsr } from '../certificates/csr'
import { VaultPki } from '../certificates/pki.vault'
import { PkiFindings } from './pki-findings'
import { VaultInventory } from './pki-inventory.vault'
import { type PkiFinding, PkiReconciler } from './pki-reconciler'
import { PkiReconcilerStore } from './pki-reconciler.store'

let vault: TestVault
let client: VaultClient
let pki: VaultPki
let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
/** Certificates that others were given before: the broker's, and whatever tests left. */
let before: Set<string>

beforeAll(async () => {
  vault = await startTestVault()
  client = await vault.clientOf('api')
  pki = new VaultPki(client, () => '')
  api = await startTestApi()
  home = await furnish(api)
}, 60_000)
afterAll(async () => {
  await api?.stop()
  client?.close()
  await vault?.stop()
})
beforeEach(async () => {
  before = new Set((await reconciler(0).reconcile()).findings.map(({ serial }) => serial))
})

it('a device certificate that nobody owns is revoked when it is old enough, and audited', async () => {
  const serial = await sign(home.device.id)
  expect(await newFindings(reconciler(3_600_000))).toEqual([
    expect.objectContaining({ kind: 'unowned', serial, action: 'waiting', deviceId: home.device.id }),
  ])
  expect(await revokedAt(serial)).toBe(0)
  const old = reconciler(0)
  expect(await newFindings(old)).toEqual([
    expect.objectContaining({ kind: 'unowned', serial, action: 'revoked', organizationId: home.organization.id }),
  ])
  expect(await revokedAt(serial)).toBeGreaterThan(0)
  const { prisma } = api.context.database
  expect(await prisma.audit.findFirstOrThrow({ orderBy: { id: 'desc' } })).toMatchObject({
    action: 'certificate.unowned.revoked',
    actorKind: 'system',
    subjectId: home.device.id,
    detail: { serial },
  })
  expect((await old.reconcile()).findings.filter((finding) => finding.serial === serial)).toEqual([])
})

it('what a sign call made whose answer never came is found, and revoked', async () => {
  const name = deviceCommonName(home.device.id)
  const csr = await checkCsr((await newKeyAndCsr(name)).csrPem, name)
  // Whether Vault carries out what nobody waits for any more is chance, so it does, and then the answer is lost.
  const deaf: Pick<VaultClient, 'write'> = {
    async write(path, data, options) {
      await client.write(path, data, options)
      throw new VaultError('timeout', `Vault POST ${path}: no answer within 5000 ms`)
    },
  }
  const ordered = await new VaultPki(deaf, () => '').signDevice(csr, name).catch((error: unknown) => error)
  expect(ordered).toMatchObject({ code: 'pki_unavailable', details: { reason: 'timeout' } })
  const found = await newFindings(reconciler(3_600_000))
  expect(found).toEqual([expect.objectContaining({ kind: 'unowned', deviceId: home.device.id })])
  await reconciler(0).reconcile()
  expect(await revokedAt(found[0]?.serial ?? '')).toBeGreaterThan(0)
})

it('the certificates of the services and of the broker are never touched', async () => {
  const { csrPem: csr } = await newKeyAndCsr('api.service.ares4.internal')
  const { data } = await client.write('pki_int/sign/service', { csr, common_name: 'api.service.ares4.internal' })
  expect(await newFindings(reconciler(0))).toEqual([])
  expect(await revokedAt(String(data.serial_number))).toBe(0)
  const listed = await client.list('pki_int/certs')
  expect(listed.length).toBeGreaterThan(1) // the broker's is there as well
  const revoked = new Set(await client.list('pki_int/certs/revoked'))
  for (const serial of listed) {
    const kept = await new VaultInventory(client).certificate(serial)
    if (!kept?.commonName.includes('.device.')) expect(revoked.has(serial)).toBe(false)
  }
})

it('a name that is nobody’s is reported and left alone', async () => {
  const commonName = `a.b${deviceCommonName(home.device.id)}`
  const serial = await sign(commonName, commonName)
  expect(await newFindings(reconciler(0))).toEqual([
    expect.objectContaining({ kind: 'unknown_name', serial, commonName, action: 'none' }),
  ])
  expect(await revokedAt(serial)).toBe(0)
})

it('a certificate that has an owner is no finding', async () => {
  await own(await sign(home.device.id), home.device.id)
  expect(await newFindings(reconciler(0))).toEqual([])
})

it('what is revoked on one side only is found; what only the database knows is revoked in Vault', async () => {
  const byHand = await sign(home.device.id)
  await own(byHand, home.device.id)
  await pki.revoke(byHand)
  const here = await sign(home.device.id)
  await own(here, home.device.id, 'revoked')
  const found = await newFindings(reconciler(0))
  expect(found).toHaveLength(2)
  expect(found).toContainEqual(
    expect.objectContaining({ kind: 'revoked_in_vault_only', serial: byHand, action: 'none' }),
  )
  expect(found).toContainEqual(
    expect.objectContaining({ kind: 'revoked_in_database_only', serial: here, action: 'revoked' }),
  )
  expect(await revokedAt(here)).toBeGreaterThan(0)
})

it('what the database has and Vault does not is found', async () => {
  await own('77:66:55', home.device.id)
  expect(await newFindings(reconciler(0))).toEqual([
    expect.objectContaining({ kind: 'missing_in_vault', serial: '77:66:55', organizationId: home.organization.id }),
  ])
})

it('many without an owner at once are held back: the database may be an older copy', async () => {
  const serials = await Promise.all(Array.from({ length: 21 }, () => sign(newId())))
  const found = await newFindings(reconciler(0))
  expect(found.map(({ action }) => action)).toEqual(serials.map(() => 'held_back'))
  for (const serial of serials) expect(await revokedAt(serial)).toBe(0)
  for (const serial of serials) await pki.revoke(serial)
})

it('the fleet doctor is told what is open, to whom it belongs', async () => {
  await own('77:66:56', home.device.id)
  const source = new PkiFindings(reconciler(0))
  const ours = await source.find([home.organization.id])
  expect(ours).toContainEqual(
    expect.objectContaining({
      code: 'certificate_missing_in_vault',
      severity: 'warning',
      organizationId: home.organization.id,
      subject: { kind: 'certificate', id: '77:66:56', name: null },
    }),
  )
  expect((await source.find([])).map(({ organizationId }) => organizationId)).not.toContain(home.organization.id)
})

it('is counted, and says when it was', async () => {
  const metrics = createMetrics('api')
  const one = reconciler(0, metrics)
  expect(one.report()).toBeUndefined()
  const [first, second] = await Promise.all([one.reconcile(), one.reconcile()])
  expect(first).toBe(second)
  expect(one.report()).toBe(first)
  expect(await metrics.getSingleMetricAsString('ares_pki_findings')).toContain('kind="missing_in_vault"')
  expect(await metrics.getSingleMetricAsString('ares_pki_reconciled_timestamp_seconds')).toMatch(/ \d{10}/)
})

it('with Vault away there is no report, and the error says so', async () => {
  await vault.server.stop()
  await expect(reconciler(0).reconcile()).rejects.toMatchObject({ code: 'pki_unavailable' })
})

function reconciler(graceMs: number, metrics = createMetrics('api')): PkiReconciler {
  const { prisma, pool } = api.context.database
  return new PkiReconciler({
    inventory: new VaultInventory(client),
    store: new PkiReconcilerStore(pool),
    pki,
    audit: new AuditService(new AuditStore(prisma)),
    metrics,
    logger: createLogger({ service: 'api', level: 'error' }),
    // Certificates begin 11 minutes before they are made: a negative grace is as if they were older.
    graceMs: graceMs === 0 ? -60_000 : graceMs,
  })
}

async function newFindings(one: PkiReconciler): Promise<PkiFinding[]> {
  return (await one.reconcile()).findings.filter(({ serial }) => !before.has(serial))
}

async function sign(deviceId: string, commonName = deviceCommonName(deviceId)): Promise<string> {
  const { csrPem: csr } = await newKeyAndCsr(commonName)
  const { data } = await client.write('pki_int/sign/device', { csr, common_name: commonName })
  return String(data.serial_number)
}

async function own(serial: string, deviceId: string, state: 'active' | 'revoked' = 'active'): Promise<void> {
  await api.context.database.prisma.certificate.create({
    data: {
      serial,
      deviceId,
      state,
      fingerprint: newId().replaceAll('-', '').repeat(2),
      notBefore: new Date(Date.now() - 3_600_000),
      notAfter: new Date(Date.now() + 3_600_000),
      createdAt: new Date(Date.now() - 3_600_000),
      revokedAt: state === 'revoked' ? new Date() : null,
    },
  })
}

async function revokedAt(serial: string): Promise<number> {
  return Number((await client.read(`pki_int/cert/${serial}`))?.data.revocation_time)
}
