import { setTimeout as sleep } from 'node:timers/promises'
import { Client } from 'pg'

/**
 * Which replica of api does something that only one may do: the one that holds an advisory lock of the database.
 *
 *   NONE ──got the lock──▶ HELD ──connection lost──▶ ALONE ──connected again──▶ HELD | NONE
 *
 * ALONE still leads: while the database is away nobody else can get the lock, and that is when the governor is needed.
 */
export class Leadership {
  private state: 'none' | 'held' | 'alone' = 'none'
  private readonly ending = new AbortController()
  private running: Promise<void> = Promise.resolve()
  private client: Client | undefined

  /** @param name of the work, the same in every replica */
  constructor(
    private readonly connectionString: string,
    private readonly name: string,
    private readonly retryMs = 2_000,
  ) {}

  get mine(): boolean {
    return this.state !== 'none'
  }

  start(): void {
    this.running = this.run()
  }

  async stop(): Promise<void> {
    this.ending.abort()
    await this.client?.end().catch(() => {})
    await this.running
    this.state = 'none'
  }

  private async run(): Promise<void> {
    while (!this.ending.signal.aborted) {
      // A lost connection is no news here: the state says it.
      await this.follow().catch(() => {})
      if (this.state === 'held') this.state = 'alone'
      await sleep(this.retryMs, undefined, { signal: this.ending.signal }).catch(() => {})
    }
  }

  /** Settles when the connection has ended. */
  private async follow(): Promise<void> {
    const { connectionString } = this
    const client = new Client({ connectionString, connectionTimeoutMillis: 5_000, keepAlive: true })
    const ended = new Promise<void>((resolve) => client.once('end', resolve))
    client.on('error', () => {}) // 'end' follows
    this.client = client
    try {
      await client.connect()
      while (!this.ending.signal.aborted) {
        const { rows } = await client.query<{ mine: boolean }>(
          'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS mine',
          [`ares ${this.name}`],
        )
        this.state = rows[0]?.mine ? 'held' : 'none'
        if (this.state === 'held') return await ended
        if (await Promise.race([ended.then(() => true), sleep(this.retryMs, false)])) return
      }
    } finally {
      void client.end().catch(() => {})
    }
  }
}
