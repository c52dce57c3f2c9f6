/** The part of Ares' REST API that somebody who sets up devices needs. */

export interface Organization {
  readonly id: string
  readonly name: string
}

export interface Metric {
  readonly name: string
  readonly kind: 'number' | 'boolean' | 'text'
  readonly unit?: string
  readonly minimum?: number
  readonly maximum?: number
}

export interface SupportedComponent {
  readonly id: string
  readonly name: string
}

export interface Blueprint {
  readonly id: string
  readonly name: string
  readonly components?: readonly SupportedComponent[]
}

export interface Device {
  readonly id: string
  readonly name: string
}

export interface ComponentInstance {
  readonly id: number | string
  readonly name: string
}

export interface IssuedCertificate {
  readonly serial: string
  readonly certificate: string
  /** Intermediate, root. */
  readonly chain: readonly string[]
  readonly expiresAt: string
}

export interface TelemetryItem {
  readonly component: string
  readonly capturedAt: string
  readonly metrics: Readonly<Record<string, number | boolean | string>>
}

export interface Page<T> {
  readonly items: readonly T[]
  readonly nextCursor?: string | null
}

/** An answer that is not a success; the message is the problem's own. */
export class ApiProblem extends Error {
  override readonly name = 'ApiProblem'
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | undefined,
  ) {
    super(message)
  }
}

interface Session {
  readonly accessToken: string
  readonly expiresAt: string
}

const TIMEOUT_MS = 15_000

/** Logs in when it has to; a call whose token has ended is made again with a new one. */
export class ApiClient {
  private session: Session | undefined
  private readonly base: string

  /** @param url of the server, e.g. http://127.0.0.1:8080 */
  constructor(
    url: string,
    private readonly login: { readonly email: string; readonly password: string },
  ) {
    this.base = `${url.replace(/\/$/, '')}/api/v1`
  }

  /** An access token that lives for a while yet. */
  async accessToken(): Promise<string> {
    const good = this.session && new Date(this.session.expiresAt).getTime() > Date.now() + 10_000
    if (!this.session || !good) {
      this.session = (await this.send('POST', '/sessions', this.login)) as Session
    }
    return this.session.accessToken
  }

  get<T>(path: string): Promise<T> {
    return this.call<T>('GET', path)
  }

  post<T>(path: string, body: object): Promise<T> {
    return this.call<T>('POST', path, body)
  }

  /** Every item of a list, page by page. */
  async *all<T>(path: string): AsyncGenerator<T> {
    let cursor: string | null | undefined
    do {
      const query = new URLSearchParams({ limit: '100', ...(cursor ? { cursor } : {}) })
      const page: Page<T> = await this.get<Page<T>>(`${path}?${query}`)
      yield* page.items
      cursor = page.nextCursor
    } while (cursor)
  }

  private async call<T>(method: string, path: string, body?: object): Promise<T> {
    try {
      return (await this.send(method, path, body, await this.accessToken())) as T
    } catch (error) {
      if (!(error instanceof ApiProblem) || error.status !== 401) throw error
      this.session = undefined
      return (await this.send(method, path, body, await this.accessToken())) as T
    }
  }

  private async send(method: string, path: string, body?: object, token?: string): Promise<unknown> {
    const response = await fetch(this.base + path, {
      method,
      headers: {
        ...(body ? { 'content-type': 'application/json' } : {}),
        ...(token ? { authorization: `Bearer ${token}` } : {}),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).catch((error: Error) => {
      // fetch says "fetch failed" and hides the reason.
      const reason = (error.cause as Partial<Error> | undefined)?.message ?? error.message
      throw new Error(`${this.base} does not answer: ${reason}`, { cause: error })
    })
    const text = await response.text()
    if (!response.ok) throw problemOf(method, path, response.status, text)
    return text ? JSON.parse(text) : undefined
  }
}

function problemOf(method: string, path: string, status: number, text: string): ApiProblem {
  let problem: { title?: string; detail?: string; code?: string } = {}
  try {
    problem = JSON.parse(text)
  } catch {
    // not from Ares, a proxy perhaps: the status has to do
  }
  const reason = problem.detail ?? problem.title ?? 'no reason given'
  return new ApiProblem(`${method} ${path}: ${status} ${reason}`, status, problem.code)
}
