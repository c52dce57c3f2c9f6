import { createHash, randomUUID } from 'node:crypto'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ServiceName } from '@ares/proto'
import { waitForFile } from '../ca-file'
import type { VaultClient } from './vault-client'
import { VaultError } from './vault-error'

export interface Credential {
  readonly roleId: string
  readonly secretId: string
}

/** Where a service gets the credentials of a login from. Each login needs fresh ones: a secret id works once. */
export interface CredentialSource {
  /** @throws CredentialAlarm  somebody else may have seen the secret id
   *  @throws NoFreshCredential  there is none that was not used already; a later try may find one
   *  @throws VaultError */
  next(signal?: AbortSignal): Promise<Credential>
  /** Looks whether somebody else has used what lies ready for the next login; uses nothing up itself. To be called every
   *  few seconds while the service runs. @throws CredentialAlarm once for each */
  inspect?(): Promise<void>
}

/** Somebody else opened a wrapped secret id, or put another in its place: a person must look at it. */
export class CredentialAlarm extends Error {
  override readonly name = 'CredentialAlarm'
}

/** Whoever hands out credentials has not given a new one yet. */
export class NoFreshCredential extends Error {
  override readonly name = 'NoFreshCredential'
}

/** How long a wrapped secret id can be opened: longer than the slowest start; whoever delivers renews it at half of it. */
export const WRAPPING_LIFE_S = 600

export interface CredentialOptions {
  /** Whose login it is: a wrapping that was made for another role is not opened. */
  readonly service: ServiceName
  /** Opens the wrapping; it needs no token. */
  readonly client: VaultClient
  /** How long a wrapping that was opened before waits for its successor before it is an alarm; default 15 s. */
  readonly graceMs?: number
}

/**
 * @param setting `parent`: asks the parent process over IPC, { type: 'ares-credential-request', id } and
 *   { type: 'ares-credential', id, roleId, wrappedSecretId }. Anything else is a directory with the files `role-id` and
 *   `wrapped-secret-id`, which are read anew for each login.
 */
export function credentialsFrom(setting: string, options: CredentialOptions): CredentialSource {
  const given = setting === 'parent' ? fromParent : fromDirectory(setting)
  const file = setting === 'parent' ? undefined : join(setting, 'wrapped-secret-id')
  return new WrappedCredentials(given, file ?? 'the parent process', { graceMs: GRACE_MS, file, ...options })
}

/**
 * Opens wrapped secret ids, each once, and says what it means when one cannot be opened. Vault has one answer for used,
 * expired and unknown, so it is told apart by what this process knows itself:
 *
 * | the wrapping | meaning |
 * |---|---|
 * | is the one that this process opened, or tried to when the answer was lost | not fresh: wait for the next |
 * | lies there for longer than it can live | not fresh: whoever delivers is away |
 * | was good when this process looked, and opened a moment later | alarm, at once |
 * | was made for something else than this service's secret id | alarm, at once |
 * | was asked of the parent just now, and is opened already | alarm, at once |
 * | was opened before this process saw it | an earlier life of this service, or somebody else: alarm after the grace |
 *
 * In the last case a restarted service finds its own used wrapping for a second, until a fresh one is delivered; a fresh
 * one within the grace ends the matter.
 *
 * While the service runs it needs no wrapping, and whoever delivers replaces one only when it has been opened or has half
 * its life behind it. So one that is replaced sooner, and that this process has not opened, was opened by somebody else.
 */
class WrappedCredentials implements CredentialSource {
  private last: { readonly fingerprint: string; readonly firstSeenMs: number; state: WrappingState } | undefined
  /** What lay there at the last inspection. */
  private ready: { readonly fingerprint: string; readonly writtenAtMs: number } | undefined
  /** Fingerprints of those that this process has opened or tried to, or told of. */
  private readonly dealtWith = new Set<string>()

  constructor(
    private readonly source: WrappedSource,
    private readonly place: string,
    private readonly options: CredentialOptions & { readonly graceMs: number; readonly file: string | undefined },
  ) {}

  async next(signal?: AbortSignal): Promise<Credential> {
    const { roleId, wrappedSecretId, writtenAtMs } = await this.source(signal)
    const fingerprint = fingerprintOf(wrappedSecretId)
    this.dealtWith.add(fingerprint)
    if (this.last?.fingerprint !== fingerprint) {
      this.last = { fingerprint, firstSeenMs: performance.now(), state: 'unknown' }
    }
    const wrapping = this.last
    if (wrapping.state === 'opened' || wrapping.state === 'told') throw this.notFresh('was used already')
    await this.look(wrapping, wrappedSecretId, writtenAtMs, signal)
    const triedBefore = wrapping.state === 'tried'
    try {
      wrapping.state = 'tried'
      const { data } = await this.options.client.unwrap(wrappedSecretId, { signal })
      wrapping.state = 'opened'
      if (typeof data.secret_id === 'string' && data.secret_id !== '') return { roleId, secretId: data.secret_id }
      throw new CredentialAlarm(`the wrapped credential from ${this.place} holds no secret id`)
    } catch (error) {
      if (!isGone(error)) throw error
      if (triedBefore) {
        wrapping.state = 'opened'
        throw this.notFresh(ANSWER_LOST)
      }
      wrapping.state = 'told'
      throw this.alarm('was opened by somebody else at the very moment this service looked at it')
    }
  }

  async inspect(): Promise<void> {
    const { file } = this.options
    const found = file === undefined ? undefined : await readIfThere(file)
    if (!found) return
    const before = this.ready
    this.ready = { fingerprint: fingerprintOf(found.text), writtenAtMs: found.writtenAtMs }
    if (!before || before.fingerprint === this.ready.fingerprint || this.dealtWith.has(before.fingerprint)) return
    const afterMs = found.writtenAtMs - before.writtenAtMs
    if (afterMs >= (WRAPPING_LIFE_S * 1_000) / 2) return
    throw this.alarm(
      `was replaced after ${Math.round(afterMs / 1_000)} s, and this service had not opened it: somebody else has`,
    )
  }

  /** Does not use it up. @throws when it must not or cannot be opened */
  private async look(
    wrapping: { readonly firstSeenMs: number; state: WrappingState },
    wrappedSecretId: string,
    writtenAtMs: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { client, service, graceMs, file } = this.options
    try {
      const { creationPath } = await client.wrappingLookup(wrappedSecretId, { signal })
      if (creationPath === `auth/approle/role/${service}/secret-id`) return
      wrapping.state = 'told'
      throw this.alarm(`was not made for ${service} but by ${creationPath}: somebody put another one in its place`)
    } catch (error) {
      if (!isGone(error)) throw error
      if (wrapping.state === 'tried') {
        wrapping.state = 'opened'
        throw this.notFresh(ANSWER_LOST)
      }
      if (writtenAtMs !== undefined && Date.now() - writtenAtMs > WRAPPING_LIFE_S * 1_000) {
        throw this.notFresh('has run out: whoever delivers credentials has not been here')
      }
      if (file && performance.now() - wrapping.firstSeenMs < graceMs) {
        throw this.notFresh('was opened before, by an earlier life of this service if nobody else did')
      }
      wrapping.state = 'told'
      throw this.alarm(`was opened before this service did, and no other came${file ? ` in ${graceMs / 1_000} s` : ''}`)
    }
  }

  private notFresh(why: string): NoFreshCredential {
    return new NoFreshCredential(
      `the wrapped credential from ${this.place} ${why}; the certificate agent, or the bootstrap of Vault, gives a new one`,
    )
  }

  private alarm(what: string): CredentialAlarm {
    return new CredentialAlarm(
      `the wrapped credential from ${this.place} ${what}. If that was none of ours, destroy its secret id; the certificate agent, or the bootstrap of Vault, gives a new one`,
    )
  }
}

/** `told`: there was an alarm about it, and there is one alarm for one wrapping. */
type WrappingState = 'unknown' | 'tried' | 'opened' | 'told'

type WrappedSource = (signal: AbortSignal | undefined) => Promise<{
  readonly roleId: string
  readonly wrappedSecretId: string
  /** When the file was written; unknown for one that came over IPC. */
  readonly writtenAtMs?: number
}>

const fingerprintOf = (wrappedSecretId: string): string => createHash('sha256').update(wrappedSecretId).digest('hex')

/** Text and time of one and the same file, though it may be replaced at any moment; undefined when there is none. */
async function readIfThere(file: string): Promise<{ readonly text: string; readonly writtenAtMs: number } | undefined> {
  const handle = await open(file).catch(() => undefined)
  if (!handle) return undefined
  try {
    return { text: (await handle.readFile('utf8')).trim(), writtenAtMs: (await handle.stat()).mtimeMs }
  } finally {
    await handle.close()
  }
}

const PARENT_LIMIT_MS = 15_000
const GRACE_MS = 15_000
const ANSWER_LOST = 'was opened by this process, and the answer was lost'

/** Vault: 400 "wrapping token is not valid or does not exist". */
const isGone = (error: unknown): boolean =>
  error instanceof VaultError && (error.code === 'rejected' || error.code === 'token_gone')

function fromDirectory(directory: string): WrappedSource {
  return async (signal) => {
    const read = async (name: string) =>
      (await waitForFile(join(directory, name), { signal, variable: 'ARES_VAULT_CREDENTIALS' })).trim()
    const roleId = await read('role-id')
    const wrappedSecretId = await read('wrapped-secret-id')
    const { mtimeMs } = await stat(join(directory, 'wrapped-secret-id'))
    return { roleId, wrappedSecretId, writtenAtMs: mtimeMs }
  }
}

const fromParent: WrappedSource = (signal) =>
  new Promise((resolve, reject) => {
    if (!process.send) {
      reject(
        new NoFreshCredential(
          'ARES_VAULT_CREDENTIALS is "parent", and this process was not started with a message channel to its parent',
        ),
      )
      return
    }
    const id = randomUUID()
    const end = (outcome: () => void) => {
      clearTimeout(timer)
      process.off('message', received)
      signal?.removeEventListener('abort', aborted)
      outcome()
    }
    const fail = (why: string) => end(() => reject(new NoFreshCredential(why)))
    const timer = setTimeout(
      () => fail(`the parent process gave no credential within ${PARENT_LIMIT_MS} ms`),
      PARENT_LIMIT_MS,
    )
    const aborted = () => fail('stopped')
    const received = (message: unknown) => {
      if (!isReply(message) || message.id !== id) return
      const { roleId, wrappedSecretId } = message
      end(() => resolve({ roleId, wrappedSecretId }))
    }
    signal?.addEventListener('abort', aborted, { once: true })
    process.on('message', received)
    process.send({ type: 'ares-credential-request', id }, (error: Error | null) => {
      if (error) fail(`the parent process cannot be asked for a credential: ${error.message}`)
    })
  })

interface ParentReply {
  readonly id: string
  readonly roleId: string
  readonly wrappedSecretId: string
}

function isReply(message: unknown): message is ParentReply {
  if (typeof message !== 'object' || message === null) return false
  const reply = message as Record<string, unknown>
  return (
    reply.type === 'ares-credential' && typeof reply.roleId === 'string' && typeof reply.wrappedSecretId === 'string'
  )
}
