import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { createLogger, newKeyAndCsr, serialOf, type VaultClient } from '@ares/chassis'
import { TestAuthority } from '@ares/chassis/testing'
import { deviceCommonName } from '@ares/proto'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import type { PrismaTransaction } from '../../database'
import { newId } from '../../ids'
import { type CheckedCsr, checkCsr } from './csr'
import { VaultPki } from './pki.vault'
import { CertificateSigning } from './signing'

/** A real OpenBao, and somebody between it and us who changes what is asked or answered: it does not answer wrongly by itself. */
let vault: TestVault
let client: VaultClient
let caPem: string
type Answer = Awaited<ReturnType<VaultClient['write']>>
let meddle: (data: Record<string, unknown>, path: string) => Promise<Answer>
const signed: string[] = []
const withMeddler: Pick<VaultClient, 'write'> = {
  async write(path, data, options) {
    if (!path.startsWith('pki_int/sign/')) return client.write(path, data, options)
    return meddle(data as Record<string, unknown>, path)
  },
}

let log = ''
const logger = createLogger({
  service: 'api',
  stream: new Writable({
    write(chunk, _encoding, done) {
      log += String(chunk)
      done()
    },
  }),
})
const written: string[] = []
const store = {
  transaction: <T>(work: (tx: PrismaTransaction) => Promise<T>) => work(undefined as never),
  insert: async () => {},
}

beforeAll(async () => {
  vault = await startTestVault()
  client = await vault.clientOf('api')
  caPem = readFileSync(join(vault.certsDir, 'ca/full_chain_ca.crt'), 'utf8')
}, 60_000)
afterAll(async () => {
  client?.close()
  await vault?.stop()
})
beforeEach(() => {
  log = ''
  signed.length = 0
  written.length = 0
})

/** Signs as the real one does, with other words in the order; the serial number is noted. */
async function real(data: object, as: VaultClient = client): Promise<Answer> {
  const answer = await as.write('pki_int/sign/device', data)
  signed.push(serialOf(String(answer.data.certificate)))
  return answer
}
const changed = (answer: Answer, data: object): Answer => ({ ...answer, data: { ...answer.data, ...data } })

async function order(options: { readonly trust?: string; readonly lifeMs?: number } = {}) {
  const deviceId = newId()
  const csr = await checkCsr((await newKeyAndCsr(deviceCommonName(deviceId))).csrPem, deviceCommonName(deviceId))
  const pki = new VaultPki(withMeddler, () => options.trust ?? caPem, options.lifeMs)
  return sign(new CertificateSigning(store, pki, logger), csr, deviceId)
}
const sign = async (signing: CertificateSigning, csr: CheckedCsr, deviceId: string) =>
  (await signing.sign(csr, deviceId, async (_tx, made) => written.push(made.serial))).signed

const isRevoked = async (serial: string) =>
  Number((await client.read(`pki_int/cert/${serial}`))?.data.revocation_time) > 0
const inDays = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString()

it('takes what was ordered, with the life that was asked for', async () => {
  meddle = (data) => real(data)
  const { notAfter, chainPem } = await order({ lifeMs: 3_600_000 })
  expect(Math.abs(notAfter.getTime() - Date.now() - 3_600_000)).toBeLessThan(60_000)
  expect(chainPem).toHaveLength(2)
  expect(written).toEqual(signed)
  expect(log).toBe('')
})

it.each([
  ['ahead', -600_000],
  ['behind', 600_000],
])('takes what a Vault signs whose clock is ten minutes %s', async (_where, offMs) => {
  meddle = (data) => real(data)
  const { now } = Date
  const clock = jest.spyOn(Date, 'now').mockImplementation(() => now() + offMs)
  try {
    await order()
    await order({ lifeMs: 3_600_000 })
    expect(written).toEqual(signed)
  } finally {
    clock.mockRestore()
  }
})

describe('what Vault made and nobody ordered is refused and revoked, and the log says why:', () => {
  type Case = readonly [string, string, typeof meddle]
  const cases: Case[] = [
    ['another name', 'the name is another one', (data) => real({ ...data, common_name: deviceCommonName(newId()) })],
    [
      'an end too late',
      'min too late',
      ({ ttl, ...data }) => real({ ...data, not_after: inDays(31) }, vault.adminClient),
    ],
    ['an end too early', 'min too early', (data) => real({ ...data, ttl: '29d' })],
    ['no chain', 'without its chain', async (data) => changed(await real(data), { ca_chain: [] })],
    ['a chain that is none', 'cannot be read', async (data) => changed(await real(data), { ca_chain: [BROKEN] })],
    [
      'no word of its serial number',
      'serial number',
      async (data) => changed(await real(data), { serial_number: undefined }),
    ],
    ['alternative names', 'alternative names', (data) => real({ ...data, exclude_cn_from_sans: false })],
  ]
  it.each(cases)('%s', async (_what, why, wrongly) => {
    meddle = wrongly
    await refused(order(), why)
    expect(await isRevoked(signed[0] ?? '')).toBe(true)
    expect(log).toContain(`${signed[0]} was revoked`)
  })

  it('an end in the past: Vault has nothing to revoke then', async () => {
    meddle = ({ ttl, ...data }) => real({ ...data, not_after: inDays(-0.001) }, vault.adminClient)
    await refused(order(), 'it has ended already')
  })

  it('a chain that does not lead to our root', async () => {
    meddle = (data) => real(data)
    await refused(order({ trust: (await TestAuthority.create()).caPem }), 'no such CA is among')
    expect(await isRevoked(signed[0] ?? '')).toBe(true)
  })

  it('the serial number of another device’s certificate: that one is not touched', async () => {
    const other = String(
      (await real({ csr: (await newKeyAndCsr('x')).csrPem, common_name: deviceCommonName(newId()) })).data
        .serial_number,
    )
    meddle = async (data) => changed(await real(data), { serial_number: other })
    await refused(order(), 'the serial number beside it is another one')
    expect(await Promise.all(signed.map(isRevoked))).toEqual([false, true])
  })
})

describe('what may be somebody else’s is refused and left to the comparison with the database:', () => {
  it('a certificate for another key', async () => {
    const { csrPem } = await newKeyAndCsr('x')
    meddle = (data) => real({ ...data, csr: csrPem })
    await refused(order(), 'the key is another one')
    expect(await isRevoked(signed[0] ?? '')).toBe(false)
    expect(log).toContain(`${signed[0]} is left to the comparison`)
  })

  it.each([
    ['nothing at all', undefined],
    ['no certificate', { certificate: 'hello', serial_number: '11:22', ca_chain: [] }],
  ])('%s', async (_what, data) => {
    meddle = async (asked) => ({ ...(await real(asked)), data: data as never })
    await refused(order(), 'it holds no certificate')
    expect(await isRevoked(signed[0] ?? '')).toBe(false)
  })
})

it('says so when it could not revoke what was wrong', async () => {
  const away = { write: async () => Promise.reject(new Error('cut off')) }
  const meddler: Pick<VaultClient, 'write'> = {
    write: async (path, data) =>
      path === 'pki_int/revoke' ? away.write() : changed(await real(data), { ca_chain: [] }),
  }
  const deviceId = newId()
  const csr = await checkCsr((await newKeyAndCsr(deviceCommonName(deviceId))).csrPem, deviceCommonName(deviceId))
  const pki = new VaultPki(meddler, () => caPem)
  await refused(sign(new CertificateSigning(store, pki, logger), csr, deviceId), 'could not be revoked')
})

const BROKEN = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'

/** The caller hears that it went wrong, the log hears what. */
async function refused(ordered: Promise<unknown>, why: string): Promise<void> {
  const error = await ordered.catch((reason: unknown) => reason)
  expect(error).toMatchObject({ kind: 'unavailable', code: 'pki_answer_wrong', details: {} })
  expect((error as Error).message).toBe('Vault made something else than the certificate that was ordered. Try again.')
  expect(JSON.parse(log.trim())).toMatchObject({ level: 'error', error: { message: expect.stringContaining(why) } })
  expect(written).toEqual([])
}
