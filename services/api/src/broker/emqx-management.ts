import { DomainError, type VaultClient, VaultError } from '@ares/chassis'
import { z } from 'zod'
import type { BrokerSessions, PersonClients } from './broker-sessions'

/** Where the bootstrap put the key. Every such key is an administrator in the community edition: only api may read it. */
const KEY_PATH = 'kv/data/ares/emqx-management'

/**
 * The management API of EMQX (v5 REST; the embedded broker offers the same calls). The key comes from Vault and is kept
 * in memory, so that a client can be cut off while Vault is away.
 */
export class EmqxManagement implements BrokerSessions, PersonClients {
  private key: Promise<string> | undefined

  constructor(
    private readonly options: {
      /** Of the dashboard's listener, e.g. http://emqx:18083; absent: nothing can be managed. */
      readonly url: string | undefined
      readonly vault: Pick<VaultClient, 'read'>
      /** Bound of one call; default 2 s. */
      readonly timeoutMs?: number
    },
  ) {}

  /** Reads the key before it is needed. A failure is not one yet: it is read again then. */
  async prepare(): Promise<void> {
    if (this.options.url) await this.authorization().catch(() => {})
  }

  async kick(clientId: string): Promise<void> {
    const { status, body } = await this.call('DELETE', `/clients/${encodeURIComponent(clientId)}`)
    // Any other 404 says that there is no such call: then nobody was looked for.
    const isThere = status !== 404 || !notThere.safeParse(body).success
    if (isThere && (status < 200 || status > 299)) throw unavailable(`it answers ${status}`)
  }

  /** By the client id, which begins with the e-mail: a session that is kept for later has no user name. */
  async clientsOf(email: string): Promise<string[]> {
    const found: string[] = []
    for (let page = 1; ; page += 1) {
      const query = new URLSearchParams({ like_clientid: email, limit: '1000', page: String(page) })
      const answer = await this.call('GET', `/clients?${query}`)
      const list = clientList.safeParse(answer.body)
      if (!list.success) throw unavailable(`it answers ${answer.status} when it is asked for clients`)
      found.push(...list.data.data.map(({ clientid }) => clientid))
      if (list.data.meta.hasnext !== true) break
    }
    return found.filter((id) => id === email || id.startsWith(`${email}/`))
  }

  /**
   * Any call under /api/v5.
   * @throws DomainError `broker_unavailable` when there is no answer, or no key that the broker takes
   */
  async call(
    method: string,
    path: string,
    body?: object,
  ): Promise<{ readonly status: number; readonly body: unknown }> {
    const answer = await this.send(method, path, body)
    if (answer.status !== 401) return answer
    // The key may have been changed since it was read.
    this.key = undefined
    const second = await this.send(method, path, body)
    if (second.status === 401) throw unavailable('it does not take the key that Vault has; run the bootstrap again')
    return second
  }

  private async send(method: string, path: string, body?: object) {
    const { url, timeoutMs = 2_000 } = this.options
    if (!url) throw unavailable('its address is not set (ARES_EMQX_API_URL)')
    const headers = {
      authorization: await this.authorization(),
      ...(body ? { 'content-type': 'application/json' } : {}),
    }
    try {
      const response = await fetch(`${url.replace(/\/$/, '')}/api/v5${path}`, {
        method,
        headers,
        ...(body ? { body: JSON.stringify(body) } : {}),
        signal: AbortSignal.timeout(timeoutMs),
      })
      const text = await response.text()
      return { status: response.status, body: parsed(text) }
    } catch (error) {
      throw unavailable(reasonOf(error), error)
    }
  }

  private async authorization(): Promise<string> {
    this.key ??= this.readKey()
    try {
      return await this.key
    } catch (error) {
      this.key = undefined
      const why = error instanceof VaultError ? `Vault: ${error.code}` : 'what Vault has there is no key'
      throw unavailable(`its key cannot be read (${why})`, error)
    }
  }

  private async readKey(): Promise<string> {
    const answer = await this.options.vault.read(KEY_PATH, { timeoutMs: this.options.timeoutMs ?? 2_000 })
    const { key, secret } = keyShape.parse(answer?.data).data
    return `Basic ${Buffer.from(`${key}:${secret}`).toString('base64')}`
  }
}

const keyShape = z.object({ data: z.object({ key: z.string().min(1), secret: z.string().min(1) }) })

const notThere = z.object({ code: z.literal('CLIENTID_NOT_FOUND') })

const clientList = z.object({
  data: z.array(z.object({ clientid: z.string() })),
  meta: z.object({ hasnext: z.boolean().optional() }),
})

const unavailable = (why: string, cause?: unknown): DomainError =>
  new DomainError('unavailable', 'broker_unavailable', `The broker cannot be managed now: ${why}.`, {}, { cause })

/** fetch says "fetch failed" and hides the reason. */
function reasonOf(error: unknown): string {
  const { name, message, cause } = error as Partial<Error>
  const { code } = (cause ?? {}) as { code?: unknown }
  if (typeof code === 'string') return code
  return name === 'TimeoutError' ? 'it does not answer in time' : (message ?? String(error))
}

function parsed(text: string): unknown {
  try {
    return text === '' ? undefined : JSON.parse(text)
  } catch {
    return text
  }
}
