import { createHash } from 'node:crypto'
import { ContentChecksum, deviceContent, revokedContent, sessionKeyContent, userContent } from './directory-checksum'

const sumOf = (contents: readonly string[]): bigint =>
  contents.reduce(
    (sum, content) => BigInt.asUintN(64, sum + createHash('sha256').update(content).digest().readBigUInt64BE()),
    0n,
  )

const contents = Array.from({ length: 2_000 }, (_, i) => revokedContent(i.toString(16), i))

describe('the checksum', () => {
  it('is the sum of the digests, in whatever order they come', () => {
    const forwards = new ContentChecksum()
    const backwards = new ContentChecksum()
    for (const content of contents) forwards.add(content)
    for (const content of [...contents].reverse()) backwards.add(content)
    expect(forwards.sum).toBe(sumOf(contents))
    expect(backwards.sum).toBe(forwards.sum)
    expect(forwards.entries).toBe(2_000n)
  })

  it('is, after a removal, what it would be without the entry, down to nothing', () => {
    const checksum = new ContentChecksum()
    for (const content of contents) checksum.add(content)
    contents.forEach((content, i) => {
      checksum.remove(content)
      if (i % 100 === 0) expect(checksum.sum).toBe(sumOf(contents.slice(i + 1)))
    })
    expect([checksum.sum, checksum.entries]).toEqual([0n, 0n])
  })
})

it('every part of an entry is in its content', () => {
  const all = [
    deviceContent('d1', 'o1', true, ['01', '02']),
    deviceContent('d2', 'o1', true, ['01', '02']),
    deviceContent('d1', 'o2', true, ['01', '02']),
    deviceContent('d1', 'o1', false, ['01', '02']),
    deviceContent('d1', 'o1', true, ['0102']),
    deviceContent('d1', 'o1', true, []),
    userContent('u1', 'a@x.org', true, new Map([['o1', 1]])),
    userContent('u2', 'a@x.org', true, new Map([['o1', 1]])),
    userContent('u1', 'b@x.org', true, new Map([['o1', 1]])),
    userContent('u1', 'a@x.org', false, new Map([['o1', 1]])),
    userContent('u1', 'a@x.org', true, new Map([['o1', 2]])),
    userContent('u1', 'a@x.org', true, new Map([['o2', 1]])),
    userContent('u1', 'a@x.org', true, new Map()),
    sessionKeyContent('k', Buffer.from([1]), 5),
    sessionKeyContent('l', Buffer.from([1]), 5),
    sessionKeyContent('k', Buffer.from([2]), 5),
    sessionKeyContent('k', Buffer.from([1]), 6),
    revokedContent('01', 5),
    revokedContent('02', 5),
    revokedContent('01', 6),
  ]
  expect(new Set(all).size).toBe(all.length)
})

it('memberships count in whatever order they come', () => {
  const memberships = [['o1', 1] as const, ['o2', 3] as const]
  expect(userContent('u', 'e', true, new Map(memberships))).toBe(
    userContent('u', 'e', true, new Map([...memberships].reverse())),
  )
})
