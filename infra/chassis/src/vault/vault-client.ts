import { setTimeout as sleep } from 'node:timers/promises'
import NodeVault from 'node-vault'
import { Backoff } from '../backoff'
import { redactText } from '../redaction'
import { errorOfAnswer, VaultError } from './vault-error'
import { createTransport, type Transport, type TransportRequest } from './vault-transport'

export interface CallOptions {
  /** Asks for the answer wrapped in a single-use token, e.g. `120s`; the token is in `wrapInfo`. */
  readonly wrapTtl?: string
  /** Bound of the call and its retries, to the last byte of the answer. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  /** A write that may be sent again after a temporary fault, e.g. a revocation. Reads and lists always may. */
  readonly idempotent?: boolean
}

export interface VaultAnswer {
  /** Empty when the answer has none. */
  readonly data: Readonly<Record<string, unknown>>
  /** What Vault ignored or cut: an option that is not there is only a warning. */
  readonly warnings: readonly string[]
  /** Raw answers such as `pki_int/ca_chain`. */
  readonly text?: string
  readonly auth?: VaultAuth
  readonly wrapInfo?: { readonly token: string; readonly ttlSeconds: number; readonly creationPath: string }
}

export interface VaultAuth {
  readonly token: string
  readonly policies: readonly string[]
  readonly leaseSeconds: number
  readonly renewable: boolean
}

export interface VaultHealth {
  readonly status: number
  readonly state: 'uninitialized' | 'sealed' | 'standby' | 'active'
  readonly version?: string
  /** The server's clock: the cheapest way to see that one of the two is wrong. */
  readonly serverTime?: Date
}

/** Vault over HTTP. Every method throws VaultError and nothing else. */
export interface VaultClient {
  token: string | undefined
  /** GET; undefined when there is nothing (404). */
  read(path: string, options?: CallOptions): Promise<VaultAnswer | undefined>
  /** POST. */
  write(path: string, data: object, options?: CallOptions): Promise<VaultAnswer>
  /** Changes the fields that are given and no others (merge-patch). A POST to a PKI role replaces it whole. */
  patch(path: string, data: object, options?: CallOptions): Promise<VaultAnswer>
  /** The names under a path; empty when there is nothing. */
  list(path: string, options?: CallOptions): Promise<string[]>
  delete(path: string, options?: CallOptions): Promise<void>
  /** Also answers for a sealed or new server; throws when nobody answers as Vault does. */
  health(options?: CallOptions): Promise<VaultHealth>
  /** Shamir; as many shares are needed as there are. The answer is given once: store it before anything else. */
  init(
    shares: number,
    options?: CallOptions,
  ): Promise<{ readonly unsealKeys: readonly string[]; readonly rootToken: string }>
  /** Unsealed is not yet ready: wait for health() to say active. */
  unseal(key: string, options?: CallOptions): Promise<{ readonly sealed: boolean }>
  /** AppRole. Does not change `token`. A login uses up a single-use secret id, so it is never sent twice. */
  login(roleId: string, secretId: string, options?: CallOptions): Promise<VaultAuth>
  /** What a wrapping token was made for; does not use it up. */
  wrappingLookup(
    wrapToken: string,
    options?: CallOptions,
  ): Promise<{ readonly creationPath: string; readonly creationTtlSeconds: number }>
  /** Opens a wrapped answer, once. A second time is `rejected`: somebody else may have opened it. */
  unwrap(wrapToken: string, options?: CallOptions): Promise<VaultAnswer>
  lookupSelf(options?: CallOptions): Promise<VaultAnswer>
  renewSelf(options?: CallOptions): Promise<VaultAuth>
  revokeSelf(options?: CallOptions): Promise<void>
  /** Closes the kept connections. */
  close(): void
}

/**
 * A client of one Vault (or OpenBao) server. It reads nothing from the environment: VAULT_TOKEN and the like have no effect.
 */
export function createVaultClient(options: {
  readonly address: string
  readonly caPem?: string
  /** Bound of a whole call, to the last byte of the answer; default 5 s. */
  readonly timeoutMs?: number
  /** Aborts every call of this client. */
  readonly signal?: AbortSignal
  readonly token?: string
  /** Told of every failed call, for metrics. */
  readonly onError?: (error: VaultError) => void
}): VaultClient {
  return new NodeVaultClient(options)
}

const DEFAULT_TIMEOUT_MS = 5_000
const MAX_TRIES = 3
const NO_TOKEN = ''
/** Initialising makes keys and holds one leader election: 1 to 10 s. */
const INIT_TIMEOUT_MS = 60_000

class NodeVaultClient implements VaultClient {
  token: string | undefined
  private readonly transport: Transport
  private readonly api: NodeVault.client
  private readonly address: string
  private readonly timeoutMs: number
  private readonly onError: (error: VaultError) => void

  constructor(options: Parameters<typeof createVaultClient>[0]) {
    this.token = options.token
    this.address = options.address.replace(/\/+$/, '')
    this.timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
    this.onError = options.onError ?? (() => {})
    this.transport = createTransport({ caPem: options.caPem, timeoutMs: this.timeoutMs, signal: options.signal })
    const settings = {
      endpoint: this.address,
      'request-promise': { defaults: () => (request: TransportRequest) => this.forNodeVault(request) },
      // node-vault prints whole bodies when DEBUG is set.
      debug: () => {},
    }
    this.api = NodeVault(settings as NodeVault.VaultOptions)
    // These it takes from the environment; the token goes with each call instead (see headers).
    this.api.token = ''
    Object.assign(this.api, { namespace: undefined, pathPrefix: '' })
  }

  async read(path: string, options: CallOptions = {}): Promise<VaultAnswer | undefined> {
    return orUndefined(this.call('GET', path, undefined, { idempotent: true, ...options }))
  }

  async write(path: string, data: object, options: CallOptions = {}): Promise<VaultAnswer> {
    return this.call('POST', path, data, options)
  }

  async patch(path: string, data: object, options: CallOptions = {}): Promise<VaultAnswer> {
    return this.call('PATCH', path, data, options, { 'Content-Type': 'application/merge-patch+json' })
  }

  async list(path: string, options: CallOptions = {}): Promise<string[]> {
    // The same as the verb LIST, which proxies and Node's own HTTP server do not know.
    const answer = await orUndefined(this.call('GET', `${path}?list=true`, undefined, { idempotent: true, ...options }))
    return answer ? strings(answer.data.keys) : []
  }

  async delete(path: string, options: CallOptions = {}): Promise<void> {
    await orUndefined(this.call('DELETE', path, undefined, options))
  }

  async health(options: CallOptions = {}): Promise<VaultHealth> {
    // Not through node-vault: its health() resolves for whatever answer, also for one that is not Vault's.
    const { statusCode, body } = await this.counted(() =>
      this.transport({
        method: 'GET',
        uri: `${this.address}/v1/sys/health`,
        timeoutMs: options.timeoutMs,
        signal: options.signal,
      }),
    )
    const answer = record(body)
    if (typeof answer.initialized !== 'boolean' || typeof answer.sealed !== 'boolean') {
      const error = new VaultError('server', `${this.address} answers ${statusCode}, and not as Vault does`, statusCode)
      this.onError(error)
      throw error
    }
    return {
      status: statusCode,
      state: !answer.initialized
        ? 'uninitialized'
        : answer.sealed
          ? 'sealed'
          : answer.standby === true
            ? 'standby'
            : 'active',
      ...(typeof answer.version === 'string' ? { version: answer.version } : {}),
      ...(typeof answer.server_time_utc === 'number' ? { serverTime: new Date(answer.server_time_utc * 1_000) } : {}),
    }
  }

  async init(shares: number, options: CallOptions = {}) {
    const body = { secret_shares: shares, secret_threshold: shares }
    const { data } = await this.call('PUT', 'sys/init', body, { timeoutMs: INIT_TIMEOUT_MS, ...options })
    return { unsealKeys: strings(data.keys_base64), rootToken: text(data.root_token, 'sys/init', 'root_token') }
  }

  async unseal(key: string, options: CallOptions = {}) {
    const { data } = await this.call('PUT', 'sys/unseal', { key }, { idempotent: true, ...options })
    return { sealed: data.sealed !== false }
  }

  async login(roleId: string, secretId: string, options: CallOptions = {}): Promise<VaultAuth> {
    const path = 'auth/approle/login'
    const body = { role_id: roleId, secret_id: secretId }
    return authOf(await this.call('POST', path, body, options, {}, NO_TOKEN), path)
  }

  async wrappingLookup(wrapToken: string, options: CallOptions = {}) {
    const path = 'sys/wrapping/lookup'
    const { data } = await this.call(
      'POST',
      path,
      { token: wrapToken },
      { idempotent: true, ...options },
      {},
      undefined,
    )
    return {
      creationPath: text(data.creation_path, path, 'creation_path'),
      creationTtlSeconds: Number(data.creation_ttl),
    }
  }

  async unwrap(wrapToken: string, options: CallOptions = {}): Promise<VaultAnswer> {
    // The wrapping token must be the token of the request: in the body alone it is refused with 403.
    return this.call('POST', 'sys/wrapping/unwrap', {}, options, {}, wrapToken)
  }

  async lookupSelf(options: CallOptions = {}): Promise<VaultAnswer> {
    return this.call('GET', 'auth/token/lookup-self', undefined, { idempotent: true, ...options })
  }

  async renewSelf(options: CallOptions = {}): Promise<VaultAuth> {
    const path = 'auth/token/renew-self'
    return authOf(await this.call('POST', path, {}, { idempotent: true, ...options }), path)
  }

  async revokeSelf(options: CallOptions = {}): Promise<void> {
    await this.call('POST', 'auth/token/revoke-self', {}, options)
  }

  close(): void {
    this.transport.close()
  }

  private async call(
    method: string,
    path: string,
    data: object | undefined,
    options: CallOptions,
    headers: Readonly<Record<string, string>> = {},
    token: string | undefined = this.token,
  ): Promise<VaultAnswer> {
    const end = Date.now() + (options.timeoutMs ?? this.timeoutMs)
    const send = () =>
      this.api.request({
        method,
        path: `/${path}`,
        ...(data === undefined ? {} : { json: data }),
        // A new object for each call: node-vault writes the token into it, and one that is kept would pin the old token.
        headers: {
          ...headers,
          ...(token ? { 'X-Vault-Token': token } : {}),
          ...(options.wrapTtl ? { 'X-Vault-Wrap-TTL': options.wrapTtl } : {}),
        },
        timeoutMs: Math.max(1, end - Date.now()),
        signal: options.signal,
      })
    const tries = options.idempotent ? MAX_TRIES : 1
    return answerOf(await this.counted(() => retried(send, `${method} ${path}`, tries, end)))
  }

  /** Makes every 2xx a success for node-vault, which knows 200 and 204 only (a tidy answers 202). */
  private async forNodeVault(request: TransportRequest) {
    const answer = await this.transport(request)
    const success = answer.statusCode >= 200 && answer.statusCode < 300
    return {
      statusCode: success && answer.statusCode !== 204 ? 200 : answer.statusCode,
      body: answer.body,
      // node-vault looks at the path only to take any answer of sys/health for a success.
      request: { path: '' },
    }
  }

  private async counted<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (error instanceof VaultError) this.onError(error)
      throw error
    }
  }
}

/** The one place that tries again: after temporary faults only, a few times, within the time of the call. */
async function retried(send: () => Promise<unknown>, call: string, tries: number, end: number): Promise<unknown> {
  const backoff = new Backoff(100, 1_000)
  for (let attempt = 1; ; attempt++) {
    try {
      return await send()
    } catch (raw) {
      const error = cleanError(call, raw)
      const wait = backoff.next()
      if (!error.temporary || attempt >= tries || Date.now() + wait >= end) throw error
      await sleep(wait)
    }
  }
}

/** node-vault's errors hold the answer; nothing of the original is passed on but Vault's own words. */
function cleanError(call: string, raw: unknown): VaultError {
  if (raw instanceof VaultError) return raw
  const response = record(record(raw).response)
  if (typeof response.statusCode === 'number') {
    const errors = strings(record(response.body).errors).map(redactText)
    const plain = typeof response.body === 'string' ? [redactText(response.body.slice(0, 200))] : []
    return errorOfAnswer(call, response.statusCode, errors.length > 0 ? errors : plain)
  }
  return new VaultError('server', `Vault ${call}: the call failed inside the client`)
}

async function orUndefined(answer: Promise<VaultAnswer>): Promise<VaultAnswer | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof VaultError && error.code === 'not_found') return undefined
    throw error
  }
}

function answerOf(raw: unknown): VaultAnswer {
  if (typeof raw === 'string') return { data: {}, warnings: [], ...(raw === '' ? {} : { text: raw }) }
  const body = record(raw)
  const wrap = record(body.wrap_info)
  const auth = record(body.auth)
  return {
    // sys/init, sys/unseal and a few others answer without the envelope.
    data: 'data' in body ? record(body.data) : body,
    warnings: strings(body.warnings),
    ...(typeof auth.client_token === 'string'
      ? {
          auth: {
            token: auth.client_token,
            policies: strings(auth.policies),
            leaseSeconds: Number(auth.lease_duration),
            renewable: auth.renewable === true,
          },
        }
      : {}),
    ...(typeof wrap.token === 'string'
      ? { wrapInfo: { token: wrap.token, ttlSeconds: Number(wrap.ttl), creationPath: String(wrap.creation_path) } }
      : {}),
  }
}

function authOf(answer: VaultAnswer, path: string): VaultAuth {
  if (!answer.auth) throw new VaultError('server', `Vault ${path}: the answer holds no token`)
  return answer.auth
}

function text(value: unknown, path: string, field: string): string {
  if (typeof value === 'string' && value !== '') return value
  throw new VaultError('server', `Vault ${path}: the answer has no ${field}`)
}

const record = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}

const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : [])
