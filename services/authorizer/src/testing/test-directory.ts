import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import {
  DeviceState,
  type Entry,
  type Heartbeat,
  type Role,
  type WatchDirectoryResponse,
} from '@ares/proto/directory/v1/directory'

export const deviceEntry = (
  id: string,
  serials: readonly Buffer[],
  o: { readonly organizationId?: string; readonly active?: boolean } = {},
): Entry => ({
  entry: {
    $case: 'device',
    value: {
      id,
      organizationId: o.organizationId ?? 'org-1',
      state: (o.active ?? true) ? DeviceState.DEVICE_STATE_ACTIVE : DeviceState.DEVICE_STATE_DISABLED,
      certificateSerials: [...serials],
    },
  },
})

export const userEntry = (
  email: string,
  roles: Readonly<Record<string, Role>>,
  o: { readonly id?: string; readonly active?: boolean } = {},
): Entry => ({
  entry: {
    $case: 'user',
    value: {
      id: o.id ?? `id-of-${email}`,
      email,
      active: o.active ?? true,
      memberships: Object.entries(roles).map(([organizationId, role]) => ({ organizationId, role })),
    },
  },
})

export const revokedEntry = (
  serial: Buffer,
  deviceId: string,
  notAfter = new Date(Date.now() + 86_400_000),
): Entry => ({
  entry: { $case: 'revokedCertificate', value: { serial, deviceId, revokedAt: new Date(), notAfter } },
})

/** A session key of api and the tokens that it signs. */
export class TestSessions {
  private readonly pair = generateKeyPairSync('ed25519')
  readonly kid = randomUUID()

  entry(notAfter = new Date(Date.now() + 3_600_000)): Entry {
    const publicKey = this.pair.publicKey.export({ format: 'der', type: 'spki' })
    return { entry: { $case: 'sessionKey', value: { kid: this.kid, publicKey, notAfter } } }
  }

  token(claims: Readonly<Record<string, unknown>>, header: Readonly<Record<string, unknown>> = {}): string {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const signed = `${part({ alg: 'EdDSA', typ: 'at+jwt', kid: this.kid, ...header })}.${part({ iss: 'ares4', aud: 'ares4', ...claims })}`
    return `${signed}.${sign(null, Buffer.from(signed), this.pair.privateKey).toString('base64url')}`
  }
}

export const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1_000) + seconds

/** The events of a snapshot, in chunks of up to 5,000. */
export function* snapshot(
  entries: readonly Entry[],
  o: { readonly epoch?: string; readonly version?: bigint } = {},
): Generator<WatchDirectoryResponse> {
  const version = o.version ?? 1n
  yield { event: { $case: 'snapshotBegin', value: { epoch: o.epoch ?? 'epoch-1', version } } }
  for (let at = 0; at < entries.length; at += 5_000) {
    yield { event: { $case: 'snapshotChunk', value: { entries: entries.slice(at, at + 5_000) } } }
  }
  yield { event: { $case: 'snapshotEnd', value: { version, entries: BigInt(entries.length) } } }
}

export const change = (version: bigint, ...entries: Entry[]): WatchDirectoryResponse => ({
  event: { $case: 'change', value: { version, entries, committedAt: new Date() } },
})

export const heartbeat = (
  version: bigint,
  o: Pick<Heartbeat, 'checksum' | 'checksumBeginsWithout'> = {},
): WatchDirectoryResponse => ({ event: { $case: 'heartbeat', value: { version, sentAt: new Date(), ...o } } })
