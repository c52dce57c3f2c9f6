import type { EmqxManagement } from '../../broker/emqx-management'

/** The bucket that all devices share at the broker: `limiter.messages.rate` of their listener. */
export interface DevicesBucket {
  /** Messages a second; Infinity: no limit. @throws when the broker cannot be asked */
  read(): Promise<number>
  /** Connected clients follow within a second, nobody is disconnected. @throws when the broker does not take it */
  write(messagesPerSecond: number): Promise<void>
}

/** Of the management API: PUT takes the body of GET, without what only describes the state. */
export class EmqxDevicesBucket implements DevicesBucket {
  constructor(
    private readonly emqx: Pick<EmqxManagement, 'call'>,
    private readonly listener = 'ssl:devices',
  ) {}

  async read(): Promise<number> {
    return rateOf((await this.get()).limiter)
  }

  async write(messagesPerSecond: number): Promise<void> {
    const { status: _status, node_status: _nodes, running: _running, ...listener } = await this.get()
    const limiter = isObject(listener.limiter) ? listener.limiter : {}
    const messages = isObject(limiter.messages) ? limiter.messages : {}
    // Whole numbers only: EMQX refuses 7500.5/s.
    const rate = `${Math.round(messagesPerSecond)}/s`
    const body = { ...listener, limiter: { ...limiter, messages: { ...messages, rate } } }
    const { status } = await this.emqx.call('PUT', this.path, body)
    if (status !== 200) throw new Error(`the broker answers ${status} to a new rate of ${this.listener}`)
  }

  private async get(): Promise<Record<string, unknown>> {
    const { status, body } = await this.emqx.call('GET', this.path)
    if (status === 200 && isObject(body)) return body
    throw new Error(`the broker answers ${status} for ${this.listener}`)
  }

  private get path(): string {
    return `/listeners/${encodeURIComponent(this.listener)}`
  }
}

const SECONDS: Readonly<Record<string, number>> = { '': 1, s: 1, m: 60, h: 3_600, d: 86_400 }

/** "8000/s", "480000/1m", 8000, "infinity", or nothing. */
function rateOf(limiter: unknown): number {
  const messages = isObject(limiter) ? limiter.messages : undefined
  const rate = isObject(messages) ? messages.rate : undefined
  if (typeof rate === 'number') return rate
  const parts = typeof rate === 'string' ? /^([\d.]+)\s*(?:\/\s*(\d*)([smhd]?))?$/.exec(rate) : null
  if (!parts) return Number.POSITIVE_INFINITY
  const [, amount, count, unit] = parts
  return Number(amount) / (Number(count || 1) * (SECONDS[unit ?? ''] ?? 1))
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
