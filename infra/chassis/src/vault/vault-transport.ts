import * as http from 'node:http'
import * as https from 'node:https'
import { VaultError } from './vault-error'

/** What node-vault hands to its transport (the hook `request-promise`), and what our client hands over beside it. */
export interface TransportRequest {
  readonly method: string
  readonly uri: string
  readonly headers?: Readonly<Record<string, string>>
  /** The body; `true` or nothing means none. */
  readonly json?: unknown
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface TransportAnswer {
  readonly statusCode: number
  /** Parsed JSON, or the text when it is none. */
  readonly body: unknown
  readonly request: { readonly path: string }
}

export interface Transport {
  (request: TransportRequest): Promise<TransportAnswer>
  close(): void
}

/**
 * The one way to Vault: kept connections, the given CA, a limit on the whole answer (also one that drips), an abort
 * signal, no proxy, no redirects, and errors that hold neither token nor body. It knows HTTP and nothing of Vault.
 */
export function createTransport(options: {
  readonly caPem?: string
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}): Transport {
  const shared = { keepAlive: true, maxSockets: 16, timeout: IDLE_MS }
  // A resumed TLS session keeps the verdict on the old certificate: each connection makes a full handshake.
  const secureAgent = new https.Agent({ ...shared, ca: options.caPem, minVersion: 'TLSv1.2', maxCachedSessions: 0 })
  const plainAgent = new http.Agent(shared)

  const send = (request: TransportRequest): Promise<TransportAnswer> => {
    const url = new URL(request.uri)
    const call = `${request.method} ${url.pathname.replace(/^\/v1\//, '')}`
    const signals = [options.signal, request.signal].filter((signal) => signal !== undefined)
    const timeoutMs = request.timeoutMs ?? options.timeoutMs
    if (signals.some((signal) => signal.aborted)) {
      return Promise.reject(new VaultError('aborted', `Vault ${call}: stopped`))
    }
    const body = typeof request.json === 'object' && request.json !== null ? JSON.stringify(request.json) : undefined
    const secure = url.protocol === 'https:'

    return new Promise<TransportAnswer>((resolve, reject) => {
      const outgoing = (secure ? https : http).request(url, {
        method: request.method,
        agent: secure ? secureAgent : plainAgent,
        headers: {
          accept: 'application/json',
          ...request.headers,
          ...(body === undefined
            ? {}
            : {
                'content-type': request.headers?.['Content-Type'] ?? 'application/json',
                'content-length': Buffer.byteLength(body),
              }),
        },
      })
      const stopWith = (error: VaultError) => {
        settle(() => reject(error))
        outgoing.destroy()
      }
      const timer = setTimeout(
        () =>
          stopWith(new VaultError('timeout', `Vault ${call}: no whole answer in ${timeoutMs} ms from ${url.origin}`)),
        timeoutMs,
      )
      const aborted = () => stopWith(new VaultError('aborted', `Vault ${call}: stopped`))
      for (const signal of signals) signal.addEventListener('abort', aborted, { once: true })
      let settled = false
      const settle = (outcome: () => void) => {
        if (settled) return
        settled = true
        clearTimeout(timer)
        for (const signal of signals) signal.removeEventListener('abort', aborted)
        outcome()
      }
      const failed = (error: NodeJS.ErrnoException) => settle(() => reject(networkError(call, url, error)))

      outgoing.on('error', failed)
      outgoing.on('response', (incoming) => {
        const parts: Buffer[] = []
        let size = 0
        incoming.on('error', failed)
        incoming.on('data', (part: Buffer) => {
          size += part.length
          parts.push(part)
          if (size > MAX_ANSWER_BYTES) stopWith(new VaultError('server', `Vault ${call}: the answer is too large`))
        })
        incoming.on('end', () =>
          settle(() =>
            resolve({
              statusCode: incoming.statusCode ?? 0,
              body: parsed(Buffer.concat(parts).toString('utf8')),
              request: { path: url.pathname },
            }),
          ),
        )
      })
      outgoing.end(body)
    })
  }
  return Object.assign(send, {
    close() {
      secureAgent.destroy()
      plainAgent.destroy()
    },
  })
}

/** A kept connection is closed by us before the server does it under a request. */
const IDLE_MS = 30_000
const MAX_ANSWER_BYTES = 64 * 1024 * 1024

function parsed(text: string): unknown {
  if (text === '') return ''
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** Keeps the code of a network error and nothing else of it. */
function networkError(call: string, url: URL, error: NodeJS.ErrnoException): VaultError {
  const code = error.code ?? 'no code'
  const host = `${url.origin}`
  if (CERTIFICATE_CODES.test(code)) {
    const why = `the certificate of ${host} is not accepted (${code}): is ARES_VAULT_CA_FILE the CA of this Vault?`
    return new VaultError('unreachable', `Vault ${call}: ${why}`, undefined, false)
  }
  return new VaultError('unreachable', `Vault ${call}: ${host} cannot be reached (${code})`)
}

/** Other faults of TLS (ERR_SSL_..., EPROTO) are a server that is starting or a link that was cut: those pass. */
const CERTIFICATE_CODES = /CERT|SIGNATURE|UNABLE_TO_|INVALID_PURPOSE|INVALID_CA/
