import { DeviceState, type Entry, Role } from '@ares/proto/directory/v1/directory'

/** Rows as the queries of directory.store.ts return them, and what becomes of them on the wire. */

export interface DeviceRow {
  readonly id: string
  readonly organization_id: string
  readonly state: 'active' | 'disabled'
  readonly serials: readonly string[]
}

export interface UserRow {
  readonly id: string
  readonly email: string
  readonly active: boolean
  readonly memberships: ReadonlyArray<{
    readonly organization_id: string
    readonly role: 'viewer' | 'operator' | 'owner'
  }>
}

export interface SessionKeyRow {
  readonly kid: string
  readonly public_key: Buffer
  readonly not_after: Date
}

export interface RevokedRow {
  readonly serial: string
  readonly device_id: string
  readonly revoked_at: Date
  readonly not_after: Date
}

export const deviceEntry = (row: DeviceRow): Entry => ({
  entry: {
    $case: 'device',
    value: {
      id: row.id,
      organizationId: row.organization_id,
      state: row.state === 'active' ? DeviceState.DEVICE_STATE_ACTIVE : DeviceState.DEVICE_STATE_DISABLED,
      certificateSerials: row.serials.map(serialBytes),
    },
  },
})

export const userEntry = (row: UserRow): Entry => ({
  entry: {
    $case: 'user',
    value: {
      id: row.id,
      email: row.email,
      active: row.active,
      memberships: row.memberships.map(({ organization_id, role }) => ({
        organizationId: organization_id,
        role: ROLE[role],
      })),
    },
  },
})

export const sessionKeyEntry = (row: SessionKeyRow): Entry => ({
  entry: { $case: 'sessionKey', value: { kid: row.kid, publicKey: row.public_key, notAfter: row.not_after } },
})

export const revokedEntry = (row: RevokedRow): Entry => ({
  entry: {
    $case: 'revokedCertificate',
    value: {
      serial: serialBytes(row.serial),
      deviceId: row.device_id,
      revokedAt: row.revoked_at,
      notAfter: row.not_after,
    },
  },
})

export const removedDeviceEntry = (id: string): Entry => ({ entry: { $case: 'removedDeviceId', value: id } })

export const removedUserEntry = (id: string): Entry => ({ entry: { $case: 'removedUserId', value: id } })

const ROLE = { viewer: Role.ROLE_VIEWER, operator: Role.ROLE_OPERATOR, owner: Role.ROLE_OWNER } as const

/** `00:9f:3a` -> the bytes 9f 3a: DER puts a zero before a high bit, and the contract has none. */
export function serialBytes(serial: string): Buffer {
  const bytes = Buffer.from(serial.replaceAll(':', ''), 'hex')
  let zeros = 0
  while (zeros < bytes.length - 1 && bytes[zeros] === 0) zeros += 1
  return bytes.subarray(zeros)
}
