import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  type Device as DeviceEntry,
  DeviceState,
  type Entry,
  Role,
  type User as UserEntry,
} from '@ares/proto/directory/v1/directory'
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
  private readonly keys = new Map<string, KnownSessionKey>()

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
        this.devices.delete(entry.value)
        return true
      case 'user':
        this.putUser(entry.value)
        return true
      case 'removedUserId':
        this.removeUser(entry.value)
        return true
      case 'sessionKey':
        return this.putKey(entry.value.kid, entry.value.publicKey, entry.value.notAfter)
      case 'revokedCertificate': {
        const serial = hexOf(entry.value.serial)
        if (serial.length > 255) return false
        this.revoked.set(serial, Buffer.alloc(0))
        return true
      }
      default:
        return false
    }
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
    const serials = device.certificateSerials.map(withoutLeadingZeros)
    if (device.id.length > 255 || serials.length > 255 || serials.some((serial) => serial.length > 255)) {
      this.devices.delete(device.id)
      return false
    }
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
    return true
  }

  private organizationNumber(id: string): number {
    const known = this.organizationNumbers.get(id)
    if (known !== undefined) return known
    this.organizations.push(id)
    this.organizationNumbers.set(id, this.organizations.length - 1)
    return this.organizations.length - 1
  }

  private putUser(user: UserEntry): void {
    this.removeUser(user.id)
    this.emails.set(user.id, user.email)
    this.users.set(user.email, {
      id: user.id,
      email: user.email,
      active: user.active,
      roles: new Map(user.memberships.map(({ organizationId, role }) => [organizationId, role])),
    })
  }

  /** An e-mail may have gone to another person meanwhile: that one stays. */
  private removeUser(id: string): void {
    const email = this.emails.get(id)
    this.emails.delete(id)
    if (email !== undefined && this.users.get(email)?.id === id) this.users.delete(email)
  }

  private putKey(kid: string, der: Uint8Array, notAfter: Date | undefined): boolean {
    this.keys.delete(kid)
    try {
      const key = createPublicKey({ key: Buffer.from(der), format: 'der', type: 'spki' })
      if (key.asymmetricKeyType !== 'ed25519' || !notAfter) return false
      this.keys.set(kid, { key, notAfterMs: notAfter.getTime() })
      return true
    } catch {
      return false // not a key: what it signs is denied, and the caller counts it
    }
  }
}

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
