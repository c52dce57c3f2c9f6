import type { Change, Checksum, Entry } from '@ares/proto/directory/v1/directory'
import type { Pool, PoolClient } from 'pg'
import type { ChecksumBegun, DirectoryHead, DirectoryReader, SnapshotSink } from './directory'
import {
  type DeviceRow,
  deviceEntry,
  type RevokedRow,
  removedDeviceEntry,
  removedUserEntry,
  revokedEntry,
  type SessionKeyRow,
  sessionKeyEntry,
  type UserRow,
  userEntry,
} from './directory.entries'

/** Reads the directory from PostgreSQL. */
export class DirectoryStore implements DirectoryReader {
  /** @param chunkSize entries per chunk of a snapshot, at most 5,000 */
  constructor(
    private readonly pool: Pool,
    private readonly chunkSize = 5_000,
  ) {}

  async head(): Promise<DirectoryHead> {
    return readHead(this.pool)
  }

  async changesAfter(version: bigint, limit: number): Promise<Change[] | undefined> {
    const { rows } = await this.pool.query<ChangeRow>({
      name: 'directory-changes',
      text: CHANGES,
      values: [version.toString(), limit],
    })
    const gapless = rows.every((row, index) => BigInt(row.version) === version + BigInt(index) + 1n)
    if (!gapless) return undefined
    if (rows.length === 0) {
      const head = await this.head()
      return head.version < version ? undefined : head.version === version ? [] : this.changesAfterPause(version, limit)
    }
    const entries = await this.entriesOf(rows)
    return rows.map((row) => ({
      version: BigInt(row.version),
      entries: entries(row),
      committedAt: row.committed_at,
    }))
  }

  async snapshot(sink: SnapshotSink): Promise<void> {
    const client = await this.pool.connect()
    let broken: Error | undefined
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
      await sink.begin(await readHead(client))
      let entries = 0
      for (const { query, toEntry } of SNAPSHOT) {
        for await (const chunk of this.cursor(client, query)) {
          entries += chunk.length
          await sink.chunk(chunk.map(toEntry))
        }
      }
      await client.query('COMMIT')
      await sink.end(entries)
    } catch (error) {
      await client.query('ROLLBACK').catch((rollbackError: Error) => {
        broken = rollbackError
      })
      throw error
    } finally {
      client.release(broken)
    }
  }

  async beginChecksum(): Promise<ChecksumBegun> {
    const client = await this.pool.connect()
    const end = async (broken?: Error) => {
      await client.query('ROLLBACK').catch((error: Error) => {
        broken = error
      })
      client.release(broken)
    }
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
      const { version } = await readHead(client)
      const { rows } = await client.query<{ now: Date }>("SELECT date_trunc('milliseconds', now()) AS now")
      const without = rows[0]?.now ?? new Date()
      return {
        version,
        without,
        async compute() {
          try {
            return await readChecksum(client, version, without)
          } finally {
            await end()
          }
        },
        cancel: () => end(),
      }
    } catch (error) {
      await end()
      throw error
    }
  }

  /** Forgets changes older than that; whoever still needs one gets a snapshot. @returns how many */
  async prune(olderThan: Date): Promise<number> {
    const { rowCount } = await this.pool.query('DELETE FROM directory_changes WHERE committed_at < $1', [olderThan])
    return rowCount ?? 0
  }

  private async *cursor(client: PoolClient, query: string): AsyncGenerator<unknown[]> {
    await client.query(`DECLARE directory_snapshot NO SCROLL CURSOR FOR ${query}`)
    for (;;) {
      const { rows } = await client.query(`FETCH ${this.chunkSize} FROM directory_snapshot`)
      if (rows.length > 0) yield rows
      if (rows.length < this.chunkSize) break
    }
    await client.query('CLOSE directory_snapshot')
  }

  /** There was no change, and then the head had moved: either one came in between, or the old ones are pruned. */
  private async changesAfterPause(version: bigint, limit: number): Promise<Change[] | undefined> {
    const { rows } = await this.pool.query<{ version: string }>({ text: CHANGES, values: [version.toString(), 1] })
    return rows.length === 0 ? undefined : this.changesAfter(version, limit)
  }

  /** Reads what the changes speak of as it is now: later versions will say so again, which is harmless. */
  private async entriesOf(changes: readonly ChangeRow[]): Promise<(change: ChangeRow) => Entry[]> {
    const ids = (kind: ChangeRow['kind']) => [
      ...new Set(changes.filter((row) => row.kind === kind).map((row) => row.id)),
    ]
    const read = async <Row>(kind: ChangeRow['kind'], query: string, key: (row: Row) => string) => {
      const wanted = ids(kind)
      if (wanted.length === 0) return new Map<string, Row>()
      const { rows } = await this.pool.query(query, [wanted])
      return new Map(rows.map((row: Row) => [key(row), row]))
    }
    const devices = await read<DeviceRow>('device', `${DEVICES} WHERE d.id = ANY ($1::uuid[])`, (row) => row.id)
    const users = await read<UserRow>('user', `${USERS} WHERE u.id = ANY ($1::uuid[])`, (row) => row.id)
    const keys = await read<SessionKeyRow>('session_key', `${SESSION_KEYS} WHERE kid = ANY ($1)`, (row) => row.kid)
    const revoked = await read<RevokedRow>(
      'revoked_certificate',
      `${REVOKED} WHERE state = 'revoked' AND serial = ANY ($1)`,
      (row) => row.serial,
    )
    return ({ kind, id }) => {
      switch (kind) {
        case 'device':
          return [orElse(devices.get(id), deviceEntry) ?? removedDeviceEntry(id)]
        case 'user':
          return [orElse(users.get(id), userEntry) ?? removedUserEntry(id)]
        case 'removed_device':
          return [removedDeviceEntry(id)]
        case 'removed_user':
          return [removedUserEntry(id)]
        case 'session_key':
          return listOf(orElse(keys.get(id), sessionKeyEntry))
        case 'revoked_certificate':
          return listOf(orElse(revoked.get(id), revokedEntry))
      }
    }
  }
}

interface ChangeRow {
  readonly version: string
  readonly kind: 'device' | 'user' | 'session_key' | 'removed_device' | 'removed_user' | 'revoked_certificate'
  readonly id: string
  readonly committed_at: Date
}

async function readHead(client: Pool | PoolClient): Promise<DirectoryHead> {
  const { rows } = await client.query<{ epoch: string; version: string }>('SELECT epoch, version FROM directory_head')
  const [head] = rows
  if (!head) throw new Error('The table directory_head is empty: the migrations put one row into it')
  return { epoch: head.epoch, version: BigInt(head.version) }
}

async function readChecksum(client: PoolClient, version: bigint, without: Date): Promise<Checksum> {
  const { rows } = await client.query<{ entries: string; sum: string }>(CHECKSUM, [without])
  const [{ entries, sum } = { entries: '0', sum: '0' }] = rows
  return { version, entries: BigInt(entries), sum: BigInt.asUintN(64, BigInt(sum)) }
}

const orElse = <Row>(row: Row | undefined, toEntry: (row: Row) => Entry): Entry | undefined =>
  row === undefined ? undefined : toEntry(row)

const listOf = (entry: Entry | undefined): Entry[] => (entry ? [entry] : [])

const CHANGES = `
  SELECT version, kind, id, committed_at FROM directory_changes WHERE version > $1 ORDER BY version LIMIT $2`

// At most 8 serials, the newest: the limit of the contract. One that has ended is retired soon (certificates/retirement.ts)
// and denied meanwhile: what depends on the time of reading would be another thing in each replica.
const DEVICES = `
  SELECT d.id, d.organization_id, d.state, ARRAY (
           SELECT c.serial FROM certificates c
            WHERE c.device_id = d.id AND c.state = 'active'
            ORDER BY c.not_before DESC, c.serial LIMIT 8) AS serials
    FROM devices d`

const USERS = `
  SELECT u.id, u.email, u.active, coalesce((
           SELECT json_agg(json_build_object('organization_id', m.organization_id, 'role', m.role))
             FROM memberships m WHERE m.user_id = u.id), '[]') AS memberships
    FROM users u`

const SESSION_KEYS = 'SELECT kid, public_key, not_after FROM session_keys'

const REVOKED = 'SELECT serial, device_id, revoked_at, not_after FROM certificates'

/** In this order: what must not be accepted comes before what may be. */
const SNAPSHOT: ReadonlyArray<{ readonly query: string; readonly toEntry: (row: unknown) => Entry }> = [
  {
    query: `${REVOKED} WHERE state = 'revoked' AND not_after > now()`,
    toEntry: (row) => revokedEntry(row as RevokedRow),
  },
  { query: `${SESSION_KEYS} WHERE not_after > now()`, toEntry: (row) => sessionKeyEntry(row as SessionKeyRow) },
  { query: USERS, toEntry: (row) => userEntry(row as UserRow) },
  { query: DEVICES, toEntry: (row) => deviceEntry(row as DeviceRow) },
]

/** SQL for serials as the contract has them: `00:9f:3a,11:22` -> `9f3a,1122`. */
const plainSerials = (serials: string): string =>
  String.raw`regexp_replace(replace(lower(${serials}), ':', ''), '(^|,)(00)+(?=[0-9a-f]{2})', '\1', 'g')`

const milliseconds = (instant: string): string => `(extract(epoch FROM ${instant}) * 1000)::bigint`

/** The contents of all entries as @ares/proto/directory-checksum writes them, and their checksum. $1: what ended by then is
 *  left out. */
const CHECKSUM = `
  WITH contents AS (
    SELECT 'device ' || d.id || ' ' || d.organization_id || ' ' || d.state || ' ' ||
           ${plainSerials("array_to_string(d.serials, ',')")} AS content
      FROM (${DEVICES}) d
    UNION ALL
    SELECT 'user ' || u.id || ' ' || u.email || ' ' || CASE WHEN u.active THEN 'active' ELSE 'disabled' END || ' ' || coalesce((
             SELECT string_agg(m.organization_id || ':' || array_position(ARRAY['viewer', 'operator', 'owner'], m.role::text),
                               ',' ORDER BY m.organization_id::text COLLATE "C")
               FROM memberships m WHERE m.user_id = u.id), '')
      FROM users u
    UNION ALL
    SELECT 'session_key ' || kid || ' ' || encode(public_key, 'hex') || ' ' || ${milliseconds('not_after')}
      FROM session_keys WHERE not_after > $1
    UNION ALL
    SELECT 'revoked ' || ${plainSerials('serial')} || ' ' || ${milliseconds('not_after')}
      FROM certificates WHERE state = 'revoked' AND not_after > $1
  )
  SELECT count(*) AS entries,
         coalesce(sum(('x' || encode(substring(sha256(convert_to(content, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint), 0)
           AS sum
    FROM contents`
