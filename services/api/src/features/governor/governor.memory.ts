import type { Pool } from 'pg'

/** What was configured at the broker, messages a second: it outlives a restart of api that finds a lowered rate there. */
export class GovernorMemory {
  constructor(private readonly pool: Pool) {}

  async recall(): Promise<number | undefined> {
    const { rows } = await this.pool.query<{ configured: number }>('SELECT configured FROM governor_memory')
    return rows[0]?.configured
  }

  async keep(configured: number): Promise<void> {
    await this.pool.query(KEEP, [configured])
  }
}

const KEEP = `
  INSERT INTO governor_memory (id, configured) VALUES (1, $1)
  ON CONFLICT (id) DO UPDATE SET configured = excluded.configured`
