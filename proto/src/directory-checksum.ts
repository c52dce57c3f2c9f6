import { hash } from 'node:crypto'
import type { Role } from './gen/ares/directory/v1/directory'

/**
 * The checksum of a directory: how a replica and the database are compared (Checksum in directory.proto).
 *
 * api's database computes it in SQL over its rows, a replica keeps it with each change, and both must mean the same by an
 * entry's content. That is written here: one line of text, the kind first, a space between the parts.
 */

/** @param serials lower-case hex without leading zero bytes, in the order of the entry */
export const deviceContent = (
  id: string,
  organizationId: string,
  active: boolean,
  serials: readonly string[],
): string => `device ${id} ${organizationId} ${active ? 'active' : 'disabled'} ${serials.join(',')}`

export const userContent = (id: string, email: string, active: boolean, roles: ReadonlyMap<string, Role>): string => {
  const memberships = [...roles].map(([organizationId, role]) => `${organizationId}:${role}`).sort()
  return `user ${id} ${email} ${active ? 'active' : 'disabled'} ${memberships.join(',')}`
}

/** @param publicKey DER, SubjectPublicKeyInfo */
export const sessionKeyContent = (kid: string, publicKey: Uint8Array, notAfterMs: number): string =>
  `session_key ${kid} ${Buffer.from(publicKey).toString('hex')} ${notAfterMs}`

/** @param serial lower-case hex without leading zero bytes */
export const revokedContent = (serial: string, notAfterMs: number): string => `revoked ${serial} ${notAfterMs}`

/** A sum over the contents of a set: the same in any order, and what is taken away leaves no trace. */
export class ContentChecksum {
  /** Two halves: a million sums of bigints would cost a second more. */
  private high = 0
  private low = 0
  private count = 0

  add(content: string): void {
    const digest = digestOf(content)
    const low = this.low + wordAt(digest, 4)
    this.low = low % WORD
    this.high = (this.high + wordAt(digest, 0) + (low >= WORD ? 1 : 0)) % WORD
    this.count += 1
  }

  remove(content: string): void {
    const digest = digestOf(content)
    const low = this.low - wordAt(digest, 4)
    this.low = (low + WORD) % WORD
    this.high = (this.high - wordAt(digest, 0) - (low < 0 ? 1 : 0) + 2 * WORD) % WORD
    this.count -= 1
  }

  get entries(): bigint {
    return BigInt(this.count)
  }

  get sum(): bigint {
    return (BigInt(this.high) << 32n) | BigInt(this.low)
  }
}

const WORD = 2 ** 32

/** One byte a character: without a Buffer and a Hash for each, a million entries take 0.8 s and not 3.7 s. */
const digestOf = (content: string): string => hash('sha256', content, 'binary')

const wordAt = (digest: string, at: number): number =>
  ((digest.charCodeAt(at) << 24) |
    (digest.charCodeAt(at + 1) << 16) |
    (digest.charCodeAt(at + 2) << 8) |
    digest.charCodeAt(at + 3)) >>>
  0
