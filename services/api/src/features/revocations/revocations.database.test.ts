import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newKeyAndCsr, type VaultClient } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { type Postgres, startPostgres } from '@ares/embedded'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { migrate } from '../../migrate'
import { furnish, startTestApi, type TestApi } from '../../testing/api'
import { VaultPki } from '../certificates/pki.vault'

/**
 * PostgreSQL is killed in the middle of a revocation. A PostgreSQL of its own: the other tests share theirs.
 * `vault`: Vault has revoked, and no row says so. `authorizers`: certificate and directory are written. `kick`: the client
 * was kicked, and no row says so.
 */
type Moment = 'vault' | 'authorizers' | 'kick'

let dir: string
let vault: TestVault
let client: VaultClient
let postgres: Postgres
let api: TestApi
let home: Awaited<ReturnType<typeof furnish>>
let killAt: Moment | undefined
let kicks = 0

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'ares-revocations-'))
  chmodSync(dir, 0o711) // as root, PostgreSQL runs under another account and has to get through
  ;[vault, postgres] = await Promise.all([startTestVault(), start()])
  await migrate({ connectionString: postgres.url })
  client = await vault.clientOf('api')
  const real = new VaultPki(client, () => readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8'))
  api = await startTestApi({
    database: { url: postgres.url, drop: async () => {} },
    pki: {
      signDevice: (csr, name) => real.signDevice(csr, name),
      async revoke(serial) {
        await real.revoke(serial)
        await dieAt('vault')
      },
    },
    directory: {
      async reached() {
        await dieAt('authorizers')
        return true
      },
    },
    broker: {
      async kick() {
        kicks += 1
        await dieAt('kick')
      },
    },
  })
  home = await furnish(api)
}, 90_000)
afterAll(async () => {
  await api?.stop()
  await postgres?.stop()
  client?.close()
  await vault?.stop()
  rmSync(dir, { recursive: true, force: true })
}, 60_000)

const start = (port?: number) => startPostgres({ dir: join(dir, 'postgres'), port, sameGroup: true })

async function dieAt(moment: Moment): Promise<void> {
  if (killAt !== moment) return
  killAt = undefined
  postgres.kill('SIGKILL')
  await postgres.exited
}

it.each<[Moment, number]>([
  ['vault', 0],
  ['authorizers', 1],
  ['kick', 1],
])(
  'PostgreSQL is killed at the step %s: the call says what is not done, and the rest is done when it is back',
  async (moment, kickedBefore) => {
    const { id, serial } = await deviceWithCertificate()
    kicks = 0
    killAt = moment
    const path = `/devices/${id}/certificates/${serial}/revoke`
    const { status, body } = await api.call('post', path, { token: home.owner.token, body: {} })
    expect([status, body.state]).toEqual([202, 'unfinished'])
    const failed = body.steps.filter((step: { error?: string }) => step.error)
    expect(failed.map(({ step }: { step: string }) => step)).toEqual([moment])
    expect(kicks).toBe(kickedBefore)
    expect(await revokedInVault(serial)).toBe(true)

    postgres = await start(postgres.port)
    const { prisma } = api.context.database
    // A question that fails because PostgreSQL is away is asked again.
    const plan = () => prisma.revocation.findUnique({ where: { id: body.id } }).catch(() => null)
    await until(async () => (await plan())?.finishedAt != null, 'the plan is finished', 40_000)
    expect(await prisma.certificate.findUnique({ where: { serial } })).toMatchObject({ state: 'revoked' })
    const audited = { subjectId: id, action: { in: ['certificate.revoked', 'certificate.revoked.requested'] } }
    expect(await prisma.audit.count({ where: audited })).toBe(2)
    const change = { kind: 'revoked_certificate', id: serial }
    expect(await prisma.directoryChange.count({ where: change })).toBe(1)
    // Whatever was kicked before, nothing could say so: the first kick and the second follow.
    expect(kicks).toBeGreaterThanOrEqual(kickedBefore + 2)
  },
  60_000,
)

it('PostgreSQL is away from the start: nothing is promised, and nothing is done', async () => {
  const { id, serial } = await deviceWithCertificate()
  kicks = 0
  postgres.kill('SIGKILL')
  await postgres.exited
  const path = `/devices/${id}/certificates/${serial}/revoke`
  const { status, body } = await api.call('post', path, { token: home.owner.token, body: {} })
  postgres = await start(postgres.port)
  expect([status, body.code]).toEqual([503, 'database_unavailable'])
  expect(await revokedInVault(serial)).toBe(false)
  expect(kicks).toBe(0)
}, 60_000)

async function deviceWithCertificate(): Promise<{ id: string; serial: string }> {
  const { token } = home.owner
  const body = { name: `device ${Math.random()}`, blueprintId: home.blueprint.id }
  const { id } = (await api.call('post', `/organizations/${home.organization.id}/devices`, { token, body })).body
  const csr = (await newKeyAndCsr(deviceCommonName(id))).csrPem
  const made = await api.call('post', `/devices/${id}/certificates`, { token, body: { csr } })
  expect(made.status).toBe(201)
  return { id, serial: made.body.serial }
}

async function revokedInVault(serial: string): Promise<boolean> {
  return Number((await client.read(`pki_int/cert/${serial}`))?.data.revocation_time) > 0
}
