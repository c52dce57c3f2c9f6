export type VaultErrorCode =
  | 'unreachable'
  | 'timeout'
  | 'sealed'
  | 'standby'
  | 'denied'
  | 'token_gone'
  | 'rejected'
  | 'not_found'
  | 'rate_limited'
  | 'server'

/** A call to Vault that did not succeed. It carries neither token nor body of the request. */
export class VaultError extends Error {
  override readonly name = 'VaultError'
  constructor(
    readonly code: VaultErrorCode,
    message: string,
    readonly status?: number,
  ) {
    super(message)
  }
}

export interface CallOptions {
  /** Asks for the answer wrapped in a single-use token, e.g. `120s`; the token is in `wrapInfo`. */
  readonly wrapTtl?: string
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface VaultAnswer {
  readonly data: Record<string, unknown>
  readonly warnings: readonly string[]
  readonly auth?: VaultAuth
  readonly wrapInfo?: { readonly token: string; readonly ttl: number; readonly creationPath: string }
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
  /** The server's clock. */
  readonly serverTime?: Date
}

/** Vault over HTTP. Every method throws VaultError and nothing else. */
export interface VaultClient {
  token: string | undefined
  /** GET; undefined when there is nothing (404). */
  read(path: string, options?: CallOptions): Promise<VaultAnswer | undefined>
  /** POST. */
  write(path: string, data: object, options?: CallOptions): Promise<VaultAnswer>
  /** PATCH as merge-patch: changes the fields that are given and no others. */
  patch(path: string, data: object, options?: CallOptions): Promise<VaultAnswer>
  /** LIST; empty when there is nothing. */
  list(path: string, options?: CallOptions): Promise<string[]>
  delete(path: string, options?: CallOptions): Promise<void>
  /** Also answers for a sealed or new server; throws only when nobody answers like Vault. */
  health(options?: CallOptions): Promise<VaultHealth>
  /** Shamir; as many shares are needed as there are. The answer is given once: store it before anything else. */
  init(
    shares: number,
    options?: CallOptions,
  ): Promise<{ readonly unsealKeys: readonly string[]; readonly rootToken: string }>
  unseal(key: string, options?: CallOptions): Promise<{ readonly sealed: boolean }>
  /** AppRole. Does not change `token`. */
  login(roleId: string, secretId: string, options?: CallOptions): Promise<VaultAuth>
  /** What a wrapping token was made for; does not use it up. */
  wrappingLookup(
    wrapToken: string,
    options?: CallOptions,
  ): Promise<{ readonly creationPath: string; readonly creationTtl: number }>
  /** Opens a wrapped answer, once. */
  unwrap(wrapToken: string, options?: CallOptions): Promise<VaultAnswer>
  lookupSelf(options?: CallOptions): Promise<VaultAnswer>
  renewSelf(options?: CallOptions): Promise<VaultAuth>
  revokeSelf(options?: CallOptions): Promise<void>
  /** Closes the kept connections. */
  close(): void
}

export function createVaultClient(_options: {
  readonly address: string
  readonly caPem?: string
  /** Bound of a whole call, to the last byte of the answer; default 5 s. */
  readonly timeoutMs?: number
  /** Aborts every call of this client. */
  readonly signal?: AbortSignal
  readonly token?: string
}): VaultClient {
  throw new Error('not built yet')
}
