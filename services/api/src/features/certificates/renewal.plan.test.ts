import { type GoodCertificate, planRenewal } from './renewal.plan'

const NOW = new Date('2026-06-15T12:00:00Z')
const DAY = 24 * 3_600_000
const daysAgo = (days: number) => new Date(NOW.getTime() - days * DAY)

/** 30 days long. */
const certificate = (serial: string, ageDays: number, more: Partial<GoodCertificate> = {}): GoodCertificate => ({
  serial,
  publicKeyHash: `key of ${serial}`,
  supersedes: null,
  createdAt: daysAgo(ageDays),
  notAfter: new Date(daysAgo(ageDays).getTime() + 30 * DAY),
  firstSeenAt: null,
  lastSeenAt: null,
  ...more,
})
const seen = { firstSeenAt: daysAgo(1), lastSeenAt: daysAgo(0) }
const plan = (certificates: GoodCertificate[], key = 'another key') => planRenewal(certificates, key, NOW)
const refusal = (certificates: GoodCertificate[]) => {
  try {
    return plan(certificates)
  } catch (error) {
    const { code, details } = error as { code: string; details: { retryAfterSeconds?: number } }
    return [code, details.retryAfterSeconds]
  }
}

it('renews when half of the life is over, and not before', () => {
  expect(plan([certificate('old', 15.01)])).toEqual({ kind: 'sign', supersedes: 'old', unused: [] })
  expect(refusal([certificate('old', 14)])).toEqual(['renewal_too_early', 86_400])
})

it('needs a certificate to begin with', () => {
  expect(refusal([])).toEqual(['certificate_missing', undefined])
})

it('answers the same key with the same certificate', () => {
  const fresh = certificate('new', 0, { supersedes: 'old' })
  expect(plan([certificate('old', 20), fresh], 'key of new')).toEqual({ kind: 'repeat', serial: 'new' })
})

it('signs again for a key that is kept, once half of its certificate is over', () => {
  expect(plan([certificate('old', 20)], 'key of old')).toEqual({ kind: 'sign', supersedes: 'old', unused: [] })
})

it('grants one of two requests at once', () => {
  const justNow = certificate('new', 10 / 86_400, { supersedes: 'old' })
  expect(refusal([certificate('old', 20), justNow])).toEqual(['renewal_in_progress', 50])
})

it('replaces a successor that was never used, for a device that lost its key', () => {
  const unused = certificate('unused', 1, { supersedes: 'old' })
  expect(plan([certificate('old', 20, seen), unused])).toEqual({ kind: 'sign', supersedes: 'old', unused: ['unused'] })
})

it('counts from the successor once it was used', () => {
  const used = certificate('new', 1, { supersedes: 'old', ...seen })
  expect(refusal([certificate('old', 20), used])).toEqual(['renewal_too_early', 14 * 86_400])
})

it('goes by the certificate that the device really uses, not by a newer one that a person ordered', () => {
  const ordered = certificate('ordered', 1)
  expect(plan([certificate('used', 20, seen), ordered])).toEqual({ kind: 'sign', supersedes: 'used', unused: [] })
})
