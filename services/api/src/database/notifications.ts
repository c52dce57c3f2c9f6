import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '@ares/chassis'
import { Client } from 'pg'

export interface NotificationsOptions {
  readonly connectionString: string
  readonly logger: Pick<Logger, 'info' | 'warn'>
  /** Pause before the connection is opened again. */
  readonly retryMs?: number
  /** How often the connection is asked whether it still lives: a network that hangs closes nothing. */
  readonly pingMs?: number
}

/**
 * PostgreSQL's LISTEN on a connection of its own, for everything in this process that waits for a change.
 * A notification that is sent while the connection is down is lost: whoever listens is told of each gap and must then
 * look for himself.
 */
export class Notifications {
  private readonly handlers = new Map<string, Set<(payload: string) => void>>()
  private readonly gapHandlers = new Set<() => void>()
  private readonly ending = new AbortController()
  private running: Promise<void> = Promise.resolve()
  private client: Client | undefined

  constructor(private readonly options: NotificationsOptions) {}

  /** Whether notifications arrive now. */
  get connected(): boolean {
    return this.client !== undefined
  }

  /** Calls `handler` with the payload of each notification. @returns the way to stop that */
  on(channel: string, handler: (payload: string) => void): () => void {
    const known = this.handlers.get(channel)
    const handlers = known ?? new Set()
    handlers.add(handler)
    this.handlers.set(channel, handlers)
    if (!known) void this.client?.query(`LISTEN ${quoted(channel)}`).catch(() => {}) // the connection's end is seen in `listen`
    return () => void handlers.delete(handler)
  }

  /** Calls `handler` when the connection is lost, and again when it is back. @returns the way to stop that */
  onGap(handler: () => void): () => void {
    this.gapHandlers.add(handler)
    return () => void this.gapHandlers.delete(handler)
  }

  /** Settles when the first connection stands, or was tried in vain: it is tried for ever. */
  async start(): Promise<void> {
    await new Promise<void>((tried) => {
      this.running = this.run(tried)
    })
  }

  async stop(): Promise<void> {
    this.ending.abort()
    await this.client?.end().catch(() => {})
    await this.running
  }

  private async run(tried: () => void): Promise<void> {
    const { logger, retryMs = 1_000 } = this.options
    while (!this.ending.signal.aborted) {
      try {
        await this.listen(tried)
      } catch (error) {
        if (this.ending.signal.aborted) return
        logger.warn('not listening for changes of the database, trying again', { error: String(error) })
      }
      tried()
      await sleep(retryMs, undefined, { signal: this.ending.signal }).catch(() => {})
    }
  }

  /** Settles when the connection has ended. */
  private async listen(connected: () => void): Promise<void> {
    const client = new Client({
      connectionString: this.options.connectionString,
      connectionTimeoutMillis: 5_000,
      query_timeout: 5_000,
      keepAlive: true,
      application_name: 'ares-api-listen',
    })
    const ended = new Promise<void>((resolve) => client.once('end', resolve))
    client.on('error', () => {}) // 'end' follows
    client.on('notification', ({ channel, payload = '' }) => {
      for (const handler of this.handlers.get(channel) ?? []) handler(payload)
    })
    try {
      await client.connect()
      for (const channel of this.handlers.keys()) await client.query(`LISTEN ${quoted(channel)}`)
      this.client = client
      if (this.ending.signal.aborted) return
      this.tellGap()
      connected()
      await Promise.race([ended, this.pingUntilDead(client)])
    } finally {
      const wasConnected = this.client === client
      this.client = undefined
      if (wasConnected) this.tellGap()
      void client.end().catch(() => {}) // may wait for a peer that is gone
    }
  }

  private async pingUntilDead(client: Client): Promise<void> {
    const { pingMs = 10_000 } = this.options
    for (;;) {
      await sleep(pingMs, undefined, { signal: this.ending.signal, ref: false })
      await client.query('SELECT 1')
    }
  }

  private tellGap(): void {
    for (const handler of this.gapHandlers) handler()
  }
}

const quoted = (channel: string): string => `"${channel.replaceAll('"', '""')}"`
