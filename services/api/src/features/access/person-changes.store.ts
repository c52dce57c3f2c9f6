import type { Pool } from 'pg'

export interface PersonChange {
  readonly version: string
  /** Null: the account is gone, and its token ends within minutes. */
  readonly email: string | null
}

/** The directory's changes of people, read from a position on that outlives the process. */
export class PersonChangeStore {
  constructor(private readonly pool: Pick<Pool, 'query'>) {}

  /** Sets the position to now if there is none yet. */
  async begin(): Promise<void> {
    await this.pool.query(BEGIN, [POSITION])
  }

  /** The oldest first. */
  async next(limit: number): Promise<PersonChange[]> {
    return (await this.pool.query<PersonChange>(CHANGES, [POSITION, limit])).rows
  }

  /** Never goes back. */
  async advance(version: string): Promise<void> {
    await this.pool.query(ADVANCE, [POSITION, version])
  }
}

const POSITION = 'person-sessions'

const BEGIN = `
  INSERT INTO worker_positions (name, version) SELECT $1, version FROM directory_head ON CONFLICT (name) DO NOTHING`

const CHANGES = `
  SELECT c.version, u.email
    FROM worker_positions p
    JOIN directory_changes c ON c.version > p.version AND c.kind IN ('user', 'removed_user')
    LEFT JOIN users u ON u.id::text = c.id
   WHERE p.name = $1 ORDER BY c.version LIMIT $2`

const ADVANCE = 'UPDATE worker_positions SET version = greatest(version, $2::bigint) WHERE name = $1'
