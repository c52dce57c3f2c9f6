import { TestAuthority } from '@ares/chassis/testing'
import { deviceCommonName } from '@ares/proto'
import type { DeviceIdentity } from './fleet'
import { Renewal } from './renewal'

const ID = '01939d4e-7f00-7c3a-9a51-0c2f6d1b8e11'
const DAY = 24 * 3_600_000

async function settled(part?: number) {
  const authority = await TestAuthority.create()
  const leaf = await authority.leaf(deviceCommonName(ID))
  const identity: DeviceIdentity = {
    keyPem: leaf.keyPem,
    certificatePem: leaf.chainPem,
    caPem: leaf.caPem,
    serial: leaf.serial,
    receivedAt: new Date(0),
    expiresAt: new Date(30 * DAY),
  }
  return { authority, identity, renewal: new Renewal(ID, identity, part) }
}

it('is due after a little more than half of the life, not for all devices at once', async () => {
  const { renewal } = await settled()
  expect(renewal.isDue(15 * DAY - 1)).toBe(false)
  expect(renewal.isDue(18 * DAY + 1)).toBe(true)
})

it('asks with the same CSR until there is an answer', async () => {
  const { renewal } = await settled(0.5)
  const [first, second] = await Promise.all([renewal.begin(15 * DAY), renewal.begin(15 * DAY)])
  expect(second).toBe(first)
  expect(renewal.isDue(15 * DAY + 1_000)).toBe(false)
  expect(renewal.isDue(15 * DAY + 31_000)).toBe(true)
  expect(await renewal.begin(16 * DAY)).toBe(first)
})

it('waits as long as it is told to', async () => {
  const { renewal } = await settled(0.5)
  await renewal.begin(15 * DAY)
  const error = { code: 'renewal_too_early', retryAfterSeconds: 3_600 }
  expect(renewal.answered({ error }, 15 * DAY)).toBe(false)
  expect(renewal.isDue(15 * DAY + 3_599_000)).toBe(false)
  expect(renewal.isDue(15 * DAY + 3_601_000)).toBe(true)
})

it('does not take a certificate for another key, another name, or from another CA', async () => {
  const { renewal, authority, identity } = await settled(0.5)
  await renewal.begin(15 * DAY)
  const foreign = await TestAuthority.create()
  for (const leaf of [
    await authority.leaf(deviceCommonName(ID)),
    await authority.leaf(deviceCommonName('another')),
    await foreign.leaf(deviceCommonName(ID)),
  ]) {
    const answer = { serial: leaf.serial, certificate: leaf.certificatePem, chain: [], expiresAt: '2030-01-01' }
    expect(renewal.answered(answer, 15 * DAY)).toBe(false)
  }
  expect(renewal.identity).toBe(identity)
})
