import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Stack } from '@ares/embedded'

export interface BrokerSample {
  /** Epoch milliseconds. */
  readonly at: number
  /** Messages that wait in the sessions of the listeners. */
  readonly queue: number
  /** Messages a second that it takes from all devices. */
  readonly rate: number
}

/** Looks at the broker through its management API all the time. EMQX itself counts a queue anew only every 15 s. */
export class BrokerWatch {
  readonly samples: BrokerSample[] = []
  private readonly ending = new AbortController()
  private readonly watching: Promise<void>

  constructor(
    private readonly stack: Stack,
    private readonly clientIds: readonly string[],
  ) {
    this.watching = this.watch()
  }

  async stop(): Promise<void> {
    this.ending.abort()
    await this.watching
  }

  private async watch(): Promise<void> {
    while (!this.ending.signal.aborted) {
      // A sample that fails is not taken: the broker is asked again at once.
      const sample = await this.look().catch(() => undefined)
      if (sample) this.samples.push(sample)
      await sleep(EVERY_MS, undefined, { signal: this.ending.signal }).catch(() => undefined)
    }
  }

  private async look(): Promise<BrokerSample> {
    const sessions = await Promise.all(this.clientIds.map((id) => this.get(`/clients/${id}`)))
    const listener = await this.get('/listeners/ssl:devices')
    const rate = (listener as { limiter?: { messages?: { rate?: string } } }).limiter?.messages?.rate ?? ''
    return {
      at: Date.now(),
      queue: sessions.reduce<number>((sum, session) => sum + Number(session.mqueue_len ?? 0), 0),
      rate: Number.parseFloat(rate),
    }
  }

  /** What it answers; nothing when it knows no such thing, as a session that has ended. */
  private async get(path: string): Promise<Record<string, unknown>> {
    const [key = '', secret = ''] = readFileSync(this.stack.state.emqxKeys, 'utf8').trim().split(':')
    const authorization = `Basic ${Buffer.from(`${key}:${secret}`).toString('base64')}`
    const response = await fetch(`${this.stack.urls.brokerManagement}/api/v5${path}`, {
      headers: { authorization },
      signal: AbortSignal.timeout(5_000),
    })
    const body = (await response.json()) as Record<string, unknown>
    if (response.ok || response.status === 404) return response.ok ? body : {}
    throw new Error(`the broker answers ${response.status} for ${path}`)
  }
}

const EVERY_MS = 500
