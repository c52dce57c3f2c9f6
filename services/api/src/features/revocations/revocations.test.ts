import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createVaultClient, DomainError, newKeyAndCsr, type VaultClient } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import type { BrokerSessions } from '../../broker/broker-sessions'
import { furnish, startTestApi, type TestApi } from '../../testing/api'
import type { Death } from '../../testing/die-while-revoking'
import type { Pki } from '../certificates/pki'
import { VaultPki } from '../certificates/pki.vault'
import { RevocationUpkeep } from './revocation-upkeep'
import { type DirectoryReach, STEPS } from './revocations'
import { RevocationStore } from './revocations.store'

/** The broker and the authorizers, as a test wants them, and what they were asked. */
const events: string[] = []
let vaultAway = false
let brokerAway = false
let authorizersAway = false
let onReached: ((version: bigint) => void) | undefined
const broker: BrokerSessions = {
  async kick(clientId) {
    if (brokerAway) throw new DomainError('unavailable', 'broker_unavailable', 'The broker cannot be managed now.')
    events.push(`kick ${clientId}`)
  },
}
const directory: DirectoryReach = {
  async reached(version) {
    events.push(`reached ${version}`)
    onReached?.(version)
    return !authorizersAway
  },
}

let vault: TestVault
let client: VaultClient
let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>

beforeAll(async () => {
  vault = await startTestVault()
  client = await vault.clientOf('api')
  const pki = new VaultPki(client, () => readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8'))
  const nobody = new VaultPki(createVaultClient({ address: 'https://127.0.0.1:1' }), () => '')
  const awayOrNot: Pki = {
    signDevice: (csr, name) => pki.signDevice(csr, name),
    revoke: (serial) => (vaultAway ? nobody : pki).revoke(serial),
  }
  api = await startTestApi({ pki: awayOrNot, broker, directory })
  home = await furnish(api)
}, 60_000)
afterAll(async () => {
  await api?.stop()
  client?.close()
  await vault?.stop()
})
beforeEach(() => {
  events.length = 0
  vaultAway = false
  brokerAway = false
  authorizersAway = false
  onReached = undefined
})

describe('a revoked certificate', () => {
  it('is revoked in Vault, then in the database, then known to the authorizers, then the client is kicked', async () => {
    const { id, serials } = await deviceWith(2)
    let stateThen: unknown
    onReached = () => {
      stateThen = Promise.all([revokedInVault(serials[0]), certificate(serials[0])])
    }
    const { status, body } = await revoke(id, serials[0], { reason: 'lost at sea' })
    expect(status).toBe(200)
    expect(body).toMatchObject({ kind: 'certificate', deviceId: id, serials: [serials[0]], state: 'effective' })
    expect(await stateThen).toEqual([
      true,
      expect.objectContaining({ state: 'revoked', revocationReason: 'lost at sea' }),
    ])
    const plan = await planOf(body.id)
    expect(events).toEqual([`reached ${plan.directoryVersion}`, `kick ${id}`])
    const times = ['vaultAt', 'databaseAt', 'authorizersAt', 'kickAt', 'auditAt'] as const
    const inOrder = times.map((time) => plan[time]?.getTime() ?? Number.NaN)
    expect([...inOrder].sort((a, b) => a - b)).toEqual(inOrder)
    expect(await certificate(serials[1])).toMatchObject({ state: 'active' })
    expect((await device(id)).state).toBe('active')
  })

  it('is told to the directory with the device that lost it, in one transaction', async () => {
    const { id, serials } = await deviceWith(1)
    const { body } = await revoke(id, serials[0])
    const { directoryVersion } = await planOf(body.id)
    const changes = await api.context.database.prisma.directoryChange.findMany({
      where: { version: { gte: Number(directoryVersion) - 1 } },
      orderBy: { version: 'asc' },
      take: 2,
    })
    expect(changes.map(({ kind, id: what }) => [kind, what])).toEqual([
      ['revoked_certificate', serials[0]],
      ['device', id],
    ])
  })

  it('has its client kicked once more after a second, and is finished then', async () => {
    const { id, serials } = await deviceWith(1)
    const { body } = await revoke(id, serials[0])
    expect(kicks(id)).toBe(1)
    const plan = await finished(body.id)
    expect(kicks(id)).toBe(2)
    expect((plan.secondKickAt?.getTime() ?? 0) - (plan.kickAt?.getTime() ?? 0)).toBeGreaterThanOrEqual(990)
    const shown = await get(`/organizations/${home.organization.id}/revocations/${body.id}`)
    expect(shown.body).toMatchObject({ state: 'finished', nextTryAt: null })
    expect(shown.body.steps.map(({ step }: { step: string }) => step)).toEqual(STEPS)
  })

  it('is in the audit twice: who asked for it, and that it is done', async () => {
    const { id, serials } = await deviceWith(1)
    const { body } = await revoke(id, serials[0])
    const { items } = (await get(`/organizations/${home.organization.id}/audit?limit=2`)).body
    const detail = expect.objectContaining({ revocationId: body.id, serials: serials[0] })
    expect(items).toEqual([
      expect.objectContaining({ action: 'certificate.revoked', actorId: home.owner.id, subjectId: id, detail }),
      expect.objectContaining({
        action: 'certificate.revoked.requested',
        actorId: home.owner.id,
        subjectId: id,
        detail,
      }),
    ])
  })

  it('revoked again is answered with what became of it, without doing it again', async () => {
    const { id, serials } = await deviceWith(1)
    const first = await revoke(id, serials[0])
    const again = await Promise.all([revoke(id, serials[0]), revoke(id, serials[0])])
    expect(again.map(({ status, body }) => [status, body.id])).toEqual([
      [200, first.body.id],
      [200, first.body.id],
    ])
  })

  it('that is another device’s, or nobody’s, is not found', async () => {
    const { id } = await deviceWith(0)
    const { serials } = await deviceWith(1)
    for (const serial of [serials[0], '11:22:33', 'nonsense']) {
      const { status, body } = await revoke(id, serial)
      expect([status, body.code]).toEqual([404, 'certificate_not_found'])
    }
  })
})

describe('a device', () => {
  it('that is disabled loses every certificate, and gets none until it is enabled', async () => {
    const { id, serials } = await deviceWith(3)
    const { status, body } = await post(`/devices/${id}/disable`, {})
    expect([status, [...body.serials].sort()]).toEqual([200, [...serials].sort()])
    for (const serial of serials) expect(await revokedInVault(serial)).toBe(true)
    expect((await device(id)).state).toBe('disabled')
    expect((await order(id)).body.code).toBe('device_disabled')
    const enabled = await post(`/devices/${id}/enable`)
    expect([enabled.status, enabled.body.state]).toEqual([200, 'active'])
    expect((await order(id)).status).toBe(201)
    expect((await certificate(serials[0])).state).toBe('revoked')
  })

  it('that is disabled with its certificates kept comes back with them', async () => {
    const { id, serials } = await deviceWith(1)
    const { body } = await post(`/devices/${id}/disable`, { keepCertificates: true })
    expect(body).toMatchObject({ state: 'effective', serials: [] })
    expect(kicks(id)).toBe(1)
    expect([(await device(id)).state, (await certificate(serials[0])).state]).toEqual(['disabled', 'active'])
  })

  it('that was enabled in between is disabled anew', async () => {
    const { id } = await deviceWith(0)
    const first = await post(`/devices/${id}/disable`, {})
    await post(`/devices/${id}/enable`)
    const second = await post(`/devices/${id}/disable`, {})
    expect(second.body.id).not.toBe(first.body.id)
    expect((await device(id)).state).toBe('disabled')
  })

  it('that is deleted is gone, its certificates are revoked, and the directory says that it was removed', async () => {
    const { id, serials } = await deviceWith(2)
    const answer = await api.call('delete', `/devices/${id}?reason=scrapped`, { token: home.owner.token })
    expect([answer.status, answer.body.state, answer.body.reason]).toEqual([200, 'effective', 'scrapped'])
    for (const serial of serials) expect(await revokedInVault(serial)).toBe(true)
    expect((await get(`/devices/${id}`)).status).toBe(404)
    const { prisma } = api.context.database
    expect(await prisma.certificate.count({ where: { deviceId: id } })).toBe(0)
    const { directoryVersion } = await planOf(answer.body.id)
    expect(await prisma.directoryChange.findUnique({ where: { version: directoryVersion ?? 0n } })).toMatchObject({
      kind: 'removed_device',
      id,
    })
    expect(kicks(id)).toBe(1)
    expect((await get(`/organizations/${home.organization.id}/revocations/${answer.body.id}`)).status).toBe(200)
  })

  it('gets no certificate from the moment that its revocation is planned', async () => {
    const { id } = await deviceWith(0)
    const { prisma } = api.context.database
    const { id: planId } = await prisma.revocation.create({
      data: {
        id: randomUUID(),
        organizationId: home.organization.id,
        deviceId: id,
        kind: 'disable',
        requestedBy: { kind: 'system' },
        nextTryAt: new Date(Date.now() + 60_000),
      },
    })
    expect((await order(id)).body.code).toBe('device_disabled')
    expect((await post(`/devices/${id}/enable`)).body.code).toBe('device_being_disabled')
    await prisma.revocation.update({ where: { id: planId }, data: { nextTryAt: new Date(0) } })
    await finished(planId)
  })
})

describe('a step that fails', () => {
  it('is named: with Vault away the device is cut off all the same, and Vault is told when it is back', async () => {
    const { id, serials } = await deviceWith(1)
    vaultAway = true
    const { status, body } = await revoke(id, serials[0])
    vaultAway = false
    expect([status, body.state]).toEqual([202, 'unfinished'])
    expect(stepsOf(body)).toMatchObject({
      vault: { doneAt: null, error: expect.stringContaining('Vault: unreachable') },
      kick: { doneAt: expect.any(String) },
      audit: { doneAt: null },
    })
    expect(kicks(id)).toBe(1)
    await finished(body.id)
    expect(await revokedInVault(serials[0])).toBe(true)
  })

  it('is named: with Vault sealed', async () => {
    const { id, serials } = await deviceWith(1)
    await vault.seal()
    const { status, body } = await revoke(id, serials[0]).finally(() => vault.unseal())
    expect([status, stepsOf(body).vault?.error]).toEqual([202, expect.stringContaining('sealed')])
    await finished(body.id)
    expect(await revokedInVault(serials[0])).toBe(true)
  })

  it('does not hold up the others for long: with a Vault that does not answer', async () => {
    const { id, serials } = await deviceWith(1)
    process.kill(vault.server.pid, 'SIGSTOP')
    const began = Date.now()
    const { status, body } = await revoke(id, serials[0]).finally(() => process.kill(vault.server.pid, 'SIGCONT'))
    expect([status, stepsOf(body).vault?.error]).toEqual([202, expect.stringContaining('timeout')])
    expect(kicks(id)).toBe(1)
    expect(Date.now() - began).toBeLessThan(6_000)
    await finished(body.id)
  }, 60_000)

  it('is named: with the broker away the authorizers deny already', async () => {
    const { id, serials } = await deviceWith(1)
    brokerAway = true
    const { status, body } = await revoke(id, serials[0])
    expect([status, stepsOf(body).kick?.error]).toEqual([202, 'The broker cannot be managed now.'])
    expect(stepsOf(body).authorizers?.doneAt).not.toBeNull()
    const unfinished = await get(`/organizations/${home.organization.id}/revocations?unfinished=true`)
    expect(unfinished.body.items.map((item: { id: string }) => item.id)).toContain(body.id)
    expect(await metric('ares_revocation_step_failures_total')).toMatch(/step="kick".*\} [1-9]/)
    expect(await metric('ares_revocations_unfinished')).toMatch(/\n.*\} [1-9]/)
    brokerAway = false
    await finished(body.id)
    expect(kicks(id)).toBe(2)
  })

  it('is named: an authorizer that does not confirm has the client kicked now, and again when it has', async () => {
    const { id, serials } = await deviceWith(1)
    authorizersAway = true
    const { status, body } = await revoke(id, serials[0])
    expect([status, body.steps.filter(({ doneAt }: { doneAt: unknown }) => doneAt === null).length]).toEqual([202, 4])
    expect(kicks(id)).toBe(1)
    authorizersAway = false
    await finished(body.id)
    expect(kicks(id)).toBe(3)
  })

  it('is tried ever more slowly, and readiness tells of it without taking api out of service', async () => {
    const { id, serials } = await deviceWith(1)
    brokerAway = true
    const { body } = await revoke(id, serials[0])
    const { prisma } = api.context.database
    await prisma.revocation.update({ where: { id: body.id }, data: { createdAt: new Date(Date.now() - 60_000) } })
    const { checks } = await api.context.health.report()
    expect(checks.revocations).toMatchObject({
      ok: true,
      degraded: true,
      detail: expect.stringContaining('kick: The broker cannot be managed now.'),
    })
    await until(async () => (await planOf(body.id)).failures >= 3)
    const { nextTryAt } = await planOf(body.id)
    expect(nextTryAt.getTime() - Date.now()).toBeGreaterThan(2_000)
    brokerAway = false
    await prisma.revocation.update({ where: { id: body.id }, data: { nextTryAt: new Date(0) } })
    await finished(body.id)
  }, 30_000)
})

describe('a process that is killed', () => {
  const deaths: Death[] = [
    { when: 'after', step: 'plan' },
    { when: 'within', step: 'vault' },
    { when: 'after', step: 'vault' },
    { when: 'after', step: 'database' },
    { when: 'within', step: 'authorizers' },
    { when: 'after', step: 'authorizers' },
    { when: 'within', step: 'kick' },
    { when: 'after', step: 'kick' },
    { when: 'after', step: 'audit' },
  ]

  it.each(deaths)(
    '$when $step leaves a revocation that another one completes',
    async ({ when, step }) => {
      const { id, serials } = await deviceWith(1)
      const deviceId = id
      const child = fork(join(__dirname, '../../testing/die-while-revoking.ts'), {
        execArgv: ['--conditions=source', '--import', require.resolve('tsx')],
        env: {
          PATH: process.env.PATH,
          ARES_TEST_JOB: JSON.stringify({
            databaseUrl: api.context.database.connectionString,
            vault: { address: vault.address, caPem: vault.caPem, token: client.token },
            deviceId,
            serial: serials[0],
            userId: home.owner.id,
            death: { when, step },
          }),
        },
      })
      const [code, signal] = await once(child, 'exit')
      expect([code, signal]).toEqual([null, 'SIGKILL'])
      const { prisma } = api.context.database
      const plan = await prisma.revocation.findFirstOrThrow({ where: { deviceId } })
      await finished(plan.id)
      expect(await revokedInVault(serials[0])).toBe(true)
      expect((await certificate(serials[0])).state).toBe('revoked')
      expect(await prisma.audit.count({ where: { subjectId: deviceId, action: 'certificate.revoked' } })).toBe(1)
      expect(kicks(deviceId)).toBeGreaterThanOrEqual(1)
    },
    60_000,
  )
})

it('a plan whose last step was done, but not its end, is ended', async () => {
  const { id, serials } = await deviceWith(1)
  const { body } = await revoke(id, serials[0])
  await finished(body.id)
  const kicked = kicks(id)
  const { prisma } = api.context.database
  await prisma.revocation.update({ where: { id: body.id }, data: { finishedAt: null, nextTryAt: new Date(0) } })
  await finished(body.id)
  expect(kicks(id)).toBe(kicked)
})

it('a plan is taken by one of many workers', async () => {
  const { id, serials } = await deviceWith(1)
  brokerAway = true
  const { body } = await revoke(id, serials[0])
  const { prisma } = api.context.database
  await prisma.revocation.update({ where: { id: body.id }, data: { nextTryAt: new Date(Date.now() + 60_000) } })
  const stores = Array.from({ length: 6 }, () => new RevocationStore(prisma))
  await prisma.revocation.update({ where: { id: body.id }, data: { nextTryAt: new Date(0) } })
  const claimed = await Promise.all(stores.map((store) => store.claimDue(8, 1_000)))
  expect(claimed.flat().filter((taken) => taken === body.id).length).toBeLessThanOrEqual(1)
  brokerAway = false
  await finished(body.id)
})

it('a plan goes 90 days after it was finished, its audit stays; one that is not finished stays', async () => {
  const { prisma } = api.context.database
  const { id, serials } = await deviceWith(1)
  const { body } = await revoke(id, serials[0])
  await finished(body.id)
  const { id: deviceId } = await deviceWith(0)
  brokerAway = true
  const unfinished = (await post(`/devices/${deviceId}/disable`, {})).body.id
  const days = (count: number) => new Date(Date.now() - count * 86_400_000)
  await prisma.revocation.update({ where: { id: unfinished }, data: { createdAt: days(200) } })
  const upkeep = new RevocationUpkeep(new RevocationStore(prisma), api.context.logger)
  const left = async () => {
    await upkeep.run()
    return prisma.revocation.count({ where: { id: { in: [body.id, unfinished] } } })
  }
  await prisma.revocation.update({ where: { id: body.id }, data: { finishedAt: days(89.9) } })
  expect(await left()).toBe(2)
  await prisma.revocation.update({ where: { id: body.id }, data: { finishedAt: days(90.1) } })
  expect(await left()).toBe(1)
  expect((await planOf(unfinished)).finishedAt).toBeNull()
  expect(await prisma.audit.count({ where: { subjectId: id, action: 'certificate.revoked' } })).toBe(1)
  expect((await certificate(serials[0])).state).toBe('revoked')
  brokerAway = false
  await prisma.revocation.update({ where: { id: unfinished }, data: { nextTryAt: new Date(0) } })
  await finished(unfinished)
})

// --- what the tests say above, in code

let made = 0

async function deviceWith(certificates: number): Promise<{ id: string; serials: [string, ...string[]] }> {
  const body = { name: `device ${++made}`, blueprintId: home.blueprint.id }
  const { id } = (await post(`/organizations/${home.organization.id}/devices`, body)).body
  const serials: string[] = []
  while (serials.length < certificates) serials.push((await order(id)).body.serial)
  return { id, serials: serials as [string, ...string[]] }
}

async function order(id: string) {
  return post(`/devices/${id}/certificates`, { csr: (await newKeyAndCsr(deviceCommonName(id))).csrPem })
}

const post = (path: string, body?: object) => api.call('post', path, { token: home.owner.token, body })
const get = (path: string) => api.call('get', path, { token: home.owner.token })
const revoke = (id: string, serial: string | undefined, body?: object) =>
  post(`/devices/${id}/certificates/${serial}/revoke`, body)
const kicks = (id: string) => events.filter((event) => event === `kick ${id}`).length
const planOf = (id: string) => api.context.database.prisma.revocation.findUniqueOrThrow({ where: { id } })
const certificate = (serial = '') => api.context.database.prisma.certificate.findUniqueOrThrow({ where: { serial } })
const device = (id: string) => api.context.database.prisma.device.findUniqueOrThrow({ where: { id } })

function stepsOf(body: { steps: Array<{ step: string; doneAt: string | null; error?: string }> }) {
  return Object.fromEntries(body.steps.map((step) => [step.step, step]))
}

const metric = (name: string) => api.context.metrics.getSingleMetricAsString(name)

async function revokedInVault(serial = ''): Promise<boolean> {
  const answer = await client.read(`pki_int/cert/${serial}`)
  return Number(answer?.data.revocation_time) > 0
}

async function finished(id: string) {
  await until(async () => (await planOf(id)).finishedAt !== null)
  return planOf(id)
}
