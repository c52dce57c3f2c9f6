import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  type Device as DeviceEntry,
  DeviceState,
  type Entry,
  type RevokedCertificate,
  Role,
  type SessionKey,
  type User as UserEntry,
} from '@ares/proto/directory/v1/directory'
import {
  ContentChecksum,
  deviceContent,
  revokedContent,
  sessionKeyContent,
  userContent,
} from '@ares/proto/directory-checksum'
import { CompactMap } from './compact-map'

export interface KnownDevice {
  readonly organizationId: string
  readonly active: boolean
  /** @param serial lower-case hex without leading zero bytes */
  hasSerial(serial: string): boolean
  /** All of them. */
  serials(): string[]
}

export interface KnownUser {
  readonly id: string
  readonly email: string
  readonly active: boolean
  /** By organization. */
  readonly roles: ReadonlyMap<string, Role>
}

export interface KnownSessionKey {
  readonly key: KeyObject
  readonly notAfterMs: number
}

/** What decisions read. */
export interface Directory {
  device(id: string): KnownDevice | undefined
  userByEmail(email: string): KnownUser | undefined
  sessionKey(kid: string): KnownSessionKey | undefined
  isRevoked(serial: string): boolean
}

/**
 * Everything the authorizer knows, in memory. Devices and revoked serials can be a million and lie in compact maps; people
 * and keys are few and are plain objects. Nothing here throws for an entry that makes no sense: it is left out, and what
 * is left out is denied.
 */
export class DirectoryTables implements Directory {
  private readonly devices = new CompactMap()
  private readonly revoked = new CompactMap()
  private readonly organizations: string[] = []
  private readonly organizationNumbers = new Map<string, number>()
  private readonly users = new Map<string, KnownUser>()
  private readonly emails = new Map<string, string>()
  private readonly keys = new Map<string, KnownSessionKey & { readonly content: string }>()
  private readonly content = new ContentChecksum()
  /** When the first of the revoked certificates ends. */
  private firstEndMs = Number.POSITIVE_INFINITY

  device(id: string): KnownDevice | undefined {
    const record = this.devices.get(id)
    return record && new DeviceRecord(record, this.organizations)
  }

  userByEmail(email: string): KnownUser | undefined {
    return this.users.get(email)
  }

  sessionKey(kid: string): KnownSessionKey | undefined {
    return this.keys.get(kid)
  }

  isRevoked(serial: string): boolean {
    return this.revoked.has(serial)
  }

  /** Takes one entry over. @returns false when it makes no sense and was left out */
  apply({ entry }: Entry): boolean {
    switch (entry?.$case) {
      case 'device':
        return this.putDevice(entry.value)
      case 'removedDeviceId':
        this.removeDevice(entry.value)
        return true
      case 'user':
        this.putUser(entry.value)
        return true
      case 'removedUserId':
        this.removeUser(entry.value)
        return true
      case 'sessionKey':
        return this.putKey(entry.value)
      case 'revokedCertificate':
        return this.putRevoked(entry.value)
      default:
        return false
    }
  }

  /** What is known, to be compared with what api's database holds. */
  checksum(): { readonly entries: bigint; readonly sum: bigint } {
    return { entries: this.content.entries, sum: this.content.sum }
  }

  /** Forgets revoked certificates and session keys that end then or before: their own end denies them by now. */
  forgetEnded(byMs: number): void {
    for (const [kid, { notAfterMs }] of this.keys) if (notAfterMs <= byMs) this.removeKey(kid)
    if (this.firstEndMs > byMs) return
    this.firstEndMs = Number.POSITIVE_INFINITY
    this.revoked.forEach((serial, end) => {
      const notAfterMs = end.readUIntBE(0, END_BYTES)
      if (notAfterMs <= byMs) this.removeRevoked(serial)
      else this.firstEndMs = Math.min(this.firstEndMs, notAfterMs)
    })
  }

  sizes(): { devices: number; users: number; sessionKeys: number; revoked: number; bytes: number } {
    return {
      devices: this.devices.size,
      users: this.users.size,
      sessionKeys: this.keys.size,
      revoked: this.revoked.size,
      bytes: this.devices.bytes + this.revoked.bytes,
    }
  }

  private putDevice(device: DeviceEntry): boolean {
    this.removeDevice(device.id)
    const serials = device.certificateSerials.map(withoutLeadingZeros)
    if (!DEVICE_ID.test(device.id) || serials.length > 255 || serials.some((serial) => serial.length > 255))
      return false
    const length = serials.reduce((sum, serial) => sum + 1 + serial.length, 5)
    const record = Buffer.allocUnsafe(length)
    record[0] = device.state === DeviceState.DEVICE_STATE_ACTIVE ? 1 : 0
    record.writeUInt32LE(this.organizationNumber(device.organizationId), 1)
    let at = 5
    for (const serial of serials) {
      record[at] = serial.length
      record.set(serial, at + 1)
      at += 1 + serial.length
    }
    this.devices.set(device.id, record)
    this.content.add(contentOf(device.id, new DeviceRecord(record, this.organizations)))
    return true
  }

  private removeDevice(id: string): void {
    const known = this.device(id)
    if (known) this.content.remove(contentOf(id, known))
    this.devices.delete(id)
  }

  private organizationNumber(id: string): number {
    const known = this.organizationNumbers.get(id)
    if (known !== undefined) return known
    this.organizations.push(id)
    this.organizationNumbers.set(id, this.organizations.length - 1)
    return this.organizations.length - 1
  }

  private putUser(entry: UserEntry): void {
    this.removeUser(entry.id)
    const roles = new Map(entry.memberships.map(({ organizationId, role }) => [organizationId, role]))
    const user: KnownUser = { id: entry.id, email: entry.email, active: entry.active, roles }
    const before = this.users.get(user.email)
    if (before) this.content.remove(contentOfUser(before))
    this.emails.set(user.id, user.email)
    this.users.set(user.email, user)
    this.content.add(contentOfUser(user))
  }

  /** An e-mail may have gone to another person meanwhile: that one stays. */
  private removeUser(id: string): void {
    const email = this.emails.get(id)
    this.emails.delete(id)
    const known = email === undefined ? undefined : this.users.get(email)
    if (known?.id !== id) return
    this.users.delete(known.email)
    this.content.remove(contentOfUser(known))
  }

  private putKey({ kid, publicKey, notAfter }: SessionKey): boolean {
    this.removeKey(kid)
    try {
      const key = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
      const notAfterMs = notAfter?.getTime() ?? Number.NaN
      if (key.asymmetricKeyType !== 'ed25519' || Number.isNaN(notAfterMs)) return false
      const content = sessionKeyContent(kid, publicKey, notAfterMs)
      this.keys.set(kid, { key, notAfterMs, content })
      this.content.add(content)
      return true
    } catch {
      return false // not a key: what it signs is denied, and the caller counts it
    }
  }

  private removeKey(kid: string): void {
    const known = this.keys.get(kid)
    if (known) this.content.remove(known.content)
    this.keys.delete(kid)
  }

  private putRevoked(certificate: RevokedCertificate): boolean {
    const serial = hexOf(certificate.serial)
    if (serial.length > 255) return false
    this.removeRevoked(serial)
    const end = Buffer.allocUnsafe(END_BYTES)
    // Without an end it is kept for good: to forget one too early would let it in again.
    const notAfterMs = Math.min(Math.max(certificate.notAfter?.getTime() || NEVER_MS, 0), NEVER_MS)
    end.writeUIntBE(notAfterMs, 0, END_BYTES)
    this.revoked.set(serial, end)
    this.firstEndMs = Math.min(this.firstEndMs, notAfterMs)
    this.content.add(revokedContent(serial, notAfterMs))
    return true
  }

  private removeRevoked(serial: string): void {
    const end = this.revoked.get(serial)
    if (end) this.content.remove(revokedContent(serial, end.readUIntBE(0, END_BYTES)))
    this.revoked.delete(serial)
  }
}

/** [a-z0-9-] and the length of a label: what a certificate's CN can name. */
const DEVICE_ID = /^[a-z0-9-]{1,63}$/

/** Bytes of an instant in milliseconds, and the last one that they can tell. */
const END_BYTES = 6
const NEVER_MS = 2 ** (8 * END_BYTES) - 1

const contentOf = (id: string, device: KnownDevice): string =>
  deviceContent(id, device.organizationId, device.active, device.serials())

const contentOfUser = ({ id, email, active, roles }: KnownUser): string => userContent(id, email, active, roles)

/** Whether a role is at least another one; an unknown role is none. */
export const roleReaches = (role: Role | undefined, least: 'viewer' | 'operator'): boolean =>
  role !== undefined && role >= (least === 'viewer' ? Role.ROLE_VIEWER : Role.ROLE_OPERATOR) && role <= Role.ROLE_OWNER

/** A serial as the directory compares it: lower-case hex of its bytes without leading zero bytes. */
export const hexOf = (serial: Uint8Array): string => Buffer.from(withoutLeadingZeros(serial)).toString('hex')

function withoutLeadingZeros(serial: Uint8Array): Uint8Array {
  let start = 0
  while (start < serial.length - 1 && serial[start] === 0) start += 1
  return start === 0 ? serial : serial.subarray(start)
}

/** Reads no more of a record than is asked for: state, number of the organization, then each serial after its length. */
class DeviceRecord implements KnownDevice {
  constructor(
    private readonly record: Buffer,
    private readonly organizations: readonly string[],
  ) {}

  get active(): boolean {
    return this.record[0] === 1
  }

  get organizationId(): string {
    return this.organizations[this.record.readUInt32LE(1)] ?? ''
  }

  hasSerial(serial: string): boolean {
    return this.serials().includes(serial)
  }

  serials(): string[] {
    const { record } = this
    const serials: string[] = []
    for (let at = 5; at < record.length; at += 1 + (record[at] ?? 0)) {
      serials.push(record.toString('hex', at + 1, at + 1 + (record[at] ?? 0)))
    }
    return serials
  }
}
