import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import {
  createLogger,
  createMetrics,
  Health,
  loadCaFile,
  newKeyAndCsr,
  ServiceIdentity,
  splitPem,
  type VaultClient,
} from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import {
  agentCredentialsFromBootstrap,
  bootstrap,
  CertsVolume,
  type RotationPhase,
  rotateIntermediate,
  VaultAgent,
} from './index'
import { startTestVault, type TestVault } from './testing/test-vault'

// One rotation from beginning to end, on a real server, with a service and the broker's agent running all the time.

interface Pair {
  readonly key: string
  /** Leaf and intermediate. */
  readonly chain: string
}

let vault: TestVault
let admin: VaultClient
let volume: CertsVolume
let agent: VaultAgent
let service: ServiceIdentity
const metrics = createMetrics('listener')
let rootPem: string
let oldPem: string
let newPem: string
/** A device that was certified before the rotation, and what its server shows. */
let early: Pair
const logger = createLogger({ service: 'test', level: 'error' })

beforeAll(async () => {
  vault = await startTestVault()
  admin = vault.adminClient
  volume = new CertsVolume({ dir: vault.certsDir })
  const ca = (await volume.readCa())!
  rootPem = ca.rootPem
  oldPem = ca.intermediatePems[0]!
  early = await device('early')
  agent = await VaultAgent.start({
    ...vault,
    credentials: agentCredentialsFromBootstrap(vault, vault.keyFile),
    renewEveryMs: 100,
    logger,
  })
  service = await ServiceIdentity.create({
    name: 'listener',
    vaultAddress: vault.address,
    vaultCaPem: vault.caPem,
    caPem: await loadCaFile(volume.caFile),
    caFile: volume.caFile,
    credentials: vault.credentials('listener'),
    logger,
    health: new Health(),
    metrics,
  })
}, 120_000)

afterAll(async () => {
  await service?.stop()
  await agent?.stop()
  await vault?.stop()
}, 30_000)

const rotate = (phase: RotationPhase, settleMs = 0) => rotateIntermediate(phase, { ...vault, settleMs })

it('has an order: a phase that comes too early says what is missing', async () => {
  await expect(rotate('switch')).rejects.toThrow(
    'there is no other intermediate than int-1: rotate-intermediate add comes first',
  )
  // Nothing old is there: nothing to retire, and nothing to change.
  expect(await rotate('retire')).toEqual({ changes: [] })
})

it('add: both are trusted, the old one issues; a second run and a bootstrap change nothing', async () => {
  const { changes } = await rotate('add')
  expect(changes).toEqual(['intermediate CA 2', 'name of int-2', `write ${volume.caFile}`])
  expect(await rotate('add')).toEqual({ changes: [] })
  expect((await bootstrap({ ...vault, emqxApiKeyFile: vault.emqxApiKeyFile })).changes).toEqual([])
  const { intermediatePems } = (await volume.readCa())!
  expect(intermediatePems).toHaveLength(2)
  expect(intermediatePems).toContain(oldPem)
  newPem = intermediatePems.find((pem) => pem !== oldPem)!
  expect(issuerOf(await device('during-add'))).toBe('Ares Intermediate CA 1')
  await expect(rotate('retire')).rejects.toThrow(
    'int-2 does not issue yet, int-1 does: rotate-intermediate switch comes',
  )
})

it('a service takes the bundle up without a restart, and leaves of both are accepted', async () => {
  await until(() => service.current().caPem.includes(newPem.trim()), 'the bundle')
  expect(await metrics.metrics()).toContain('ares_ca_bundle_changes_total{result="taken",service="listener"} 1')
  const late = await deviceOf('int-2', 'late')
  for (const pair of [early, late]) expect(await handshake(pair)).toBe('accepted')
})

it('switch waits until everybody can have read the bundle', async () => {
  await expect(rotate('switch', 180_000)).rejects.toThrow(
    /the CA bundle is \d+ s old, and not everybody has read it yet: run rotate-intermediate switch again in 1\d\d s/,
  )
  await volume.writeCa(rootPem, [oldPem])
  await expect(rotate('switch')).rejects.toThrow('does not hold int-2 yet: run rotate-intermediate add again')
  await rotate('add')
})

it('switch: the new one issues, the broker moves over by itself, the service at its renewal, old leaves are accepted', async () => {
  const before = service.current().serial
  expect((await rotate('switch')).changes).toEqual(['int-2 issues'])
  expect(await rotate('switch')).toEqual({ changes: [] })
  await until(async () => splitPem((await volume.readBroker())!.chainPem)[1] === newPem, 'the broker')
  await service.renew()
  expect(service.current().serial).not.toBe(before)
  expect(splitPem(service.current().chainPem)[1]).toBe(newPem)
  const late = await device('late-2')
  expect(issuerOf(late)).toBe('Ares Intermediate CA 2')
  for (const pair of [early, late]) expect(await handshake(pair)).toBe('accepted')
  await expect(rotate('add')).rejects.toThrow('int-1 from the rotation before is still there')
})

it('retire: the old one issues no more; it stays while a leaf of it lives, and says which and until when', async () => {
  const first = await rotate('retire')
  expect(first.changes).toEqual(['int-1 issues no more'])
  expect(first.waitsFor).toMatch(
    /^\d+ certificates of int-1 have not ended yet \(.*devices: 2.*\), the last one does at 20\d\d-.*Z; they stay accepted/,
  )
  expect(first.waitsFor).toContain('broker: 1')
  await expect(deviceOf('int-1', 'too-late')).rejects.toMatchObject({ status: 500 })
  expect(await handshake(early)).toBe('accepted')
  expect((await volume.readCa())!.intermediatePems).toContain(oldPem)
  expect((await rotate('retire')).changes).toEqual([])
})

it('retire: with the last leaf ended it is revoked at the root and removed, also from the bundle; the service follows', async () => {
  // Nobody can wait 30 days here.
  const at = new Date(Date.now() + 31 * 86_400_000)
  const { changes, waitsFor } = await rotateIntermediate('retire', { ...vault, at })
  expect(waitsFor).toBeUndefined()
  expect(changes).toEqual([
    'int-1 revoked at the root',
    'int-1 removed',
    'key of int-1 removed',
    `write ${volume.caFile}`,
  ])
  expect((await volume.readCa())!.intermediatePems).toEqual([newPem])
  await until(() => !service.current().caPem.includes(oldPem.trim()), 'the bundle')
  expect(await handshake(await device('afterwards'))).toBe('accepted')
  expect(await handshake({ ...early, chain: splitPem(early.chain)[0]! })).toBe('refused')
  expect(await rotate('retire')).toEqual({ changes: [] })
  expect((await bootstrap({ ...vault, emqxApiKeyFile: vault.emqxApiKeyFile })).changes).toEqual([])
})

it('a run that was cut off after the removal is finished by the next one', async () => {
  await volume.writeCa(rootPem, [newPem, oldPem])
  expect((await rotate('retire')).changes).toEqual([`write ${volume.caFile}`])
})

it('runs from the command line, and the next one is number 3', async () => {
  const run = async (phase: string) => {
    const child = promisify(execFile)(
      process.execPath,
      [
        '--conditions=source',
        '--import',
        require.resolve('tsx'),
        path.join(__dirname, 'main.ts'),
        'rotate-intermediate',
        phase,
      ],
      {
        env: {
          PATH: process.env.PATH,
          ARES_VAULT_ADDR: vault.address,
          ARES_VAULT_CA_FILE: vault.caFile,
          ARES_VAULT_KEY_STORE: vault.keyFile,
          ARES_CERTS_DIR: vault.certsDir,
          ARES_ROTATION_SETTLE: '1ms',
        },
      },
    )
    return child.then(
      ({ stdout, stderr }) => ({ code: 0, text: stdout + stderr }),
      (error: { code: number; stdout: string; stderr: string }) => ({
        code: error.code,
        text: error.stdout + error.stderr,
      }),
    )
  }
  expect(await run('backwards')).toMatchObject({ code: 1, text: expect.stringContaining('add, switch, retire') })
  expect(await run('switch')).toMatchObject({
    code: 1,
    text: expect.stringContaining('rotate-intermediate add comes first'),
  })
  expect(await run('add')).toMatchObject({ code: 0, text: expect.stringContaining('intermediate CA 3') })
  expect(await run('switch')).toMatchObject({ code: 0 })
  const waiting = await run('retire')
  expect(waiting).toMatchObject({ code: 3, text: expect.stringContaining('have not ended yet') })
  expect(waiting.text).not.toMatch(/PRIVATE KEY|\bs\.[A-Za-z0-9]{24}\b/)
}, 60_000)

/** A device's certificate from whoever issues, or from the issuer that is named. */
const device = (id: string): Promise<Pair> => sign('pki_int/sign/device', id)
const deviceOf = (issuer: string, id: string): Promise<Pair> => sign(`pki_int/issuer/${issuer}/sign/device`, id)

async function sign(at: string, id: string): Promise<Pair> {
  const common_name = `${id}.device.ares4.internal`
  const { keyPem, csrPem } = await newKeyAndCsr(common_name)
  const { data } = await admin.write(at, { csr: csrPem, common_name })
  return { key: keyPem, chain: `${data.certificate}\n${data.issuing_ca}\n` }
}

const issuerOf = ({ chain }: Pair): string => new X509Certificate(chain).issuer.replace('CN=', '')

/** Connects a device to a broker that shows and trusts what lies in the certs volume now; the device knows the root. */
async function handshake(pair: Pair): Promise<'accepted' | 'refused'> {
  const broker = (await volume.readBroker())!
  const server = createServer({
    cert: broker.chainPem,
    key: broker.keyPem,
    ca: await readFile(volume.caFile),
    requestCert: true,
    rejectUnauthorized: false,
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const judged = once(server, 'secureConnection') as Promise<[TLSSocket]>
  const { port } = server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', servername: 'emqx', ca: rootPem, cert: pair.chain, key: pair.key })
  try {
    await once(socket, 'secureConnect')
    const [seen] = await judged
    seen.destroy()
    return seen.authorized ? 'accepted' : 'refused'
  } finally {
    socket.destroy()
    server.close()
  }
}
