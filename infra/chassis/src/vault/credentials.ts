import { createHash, randomUUID } from 'node:crypto'
import { join } from 'node:path'
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
}

/** A wrapped secret id was opened before we opened it, or is none: a person must look at it. */
export class CredentialAlarm extends Error {
  override readonly name = 'CredentialAlarm'
}

/** Whoever hands out credentials has not given a new one yet. */
export class NoFreshCredential extends Error {
  override readonly name = 'NoFreshCredential'
}

/**
 * @param setting `parent`: asks the parent process over IPC, { type: 'ares-credential-request', id } and
 *   { type: 'ares-credential', id, roleId, wrappedSecretId }. Anything else is a directory with the files `role-id` and
 *   `wrapped-secret-id`, which are read anew for each login.
 * @param client opens the wrapping; it needs no token
 */
export function credentialsFrom(setting: string, client: VaultClient): CredentialSource {
  const source: WrappedSource = setting === 'parent' ? fromParent : fromDirectory(setting)
  let usedUp: string | undefined
  return {
    async next(signal) {
      const { roleId, wrappedSecretId } = await source(signal)
      const fingerprint = createHash('sha256').update(wrappedSecretId).digest('hex')
      if (fingerprint === usedUp) {
        throw new NoFreshCredential(
          `${setting === 'parent' ? 'the parent process' : join(setting, 'wrapped-secret-id')} still gives a credential that was used already; the certificate agent or the bootstrap of Vault writes a new one`,
        )
      }
      try {
        const secretId = await open(client, wrappedSecretId, signal)
        usedUp = fingerprint
        return { roleId, secretId }
      } catch (error) {
        // One alarm for one credential; from now on it is only not fresh.
        if (error instanceof CredentialAlarm) usedUp = fingerprint
        throw error
      }
    },
  }
}

type WrappedSource = (
  signal: AbortSignal | undefined,
) => Promise<{ readonly roleId: string; readonly wrappedSecretId: string }>

const PARENT_LIMIT_MS = 15_000

/** Looks at what the wrapping token was made for before it is used up: only a secret id of an AppRole is wanted. */
async function open(client: VaultClient, wrapToken: string, signal: AbortSignal | undefined): Promise<string> {
  try {
    const { creationPath } = await client.wrappingLookup(wrapToken, { signal })
    if (!/^auth\/approle\/role\/[a-z0-9-]+\/secret-id$/.test(creationPath)) {
      throw new CredentialAlarm(
        `the wrapped credential was not made by an AppRole but by ${creationPath}: somebody put another one in its place`,
      )
    }
    const { data } = await client.unwrap(wrapToken, { signal })
    if (typeof data.secret_id === 'string' && data.secret_id !== '') return data.secret_id
    throw new CredentialAlarm('the wrapped credential holds no secret id')
  } catch (error) {
    // Vault: 400 "wrapping token is not valid or does not exist". It cannot tell used from expired.
    if (error instanceof VaultError && (error.code === 'rejected' || error.code === 'token_gone')) {
      throw new CredentialAlarm(
        `the wrapped credential cannot be opened (${error.message}): it is too old, or this service used it before a restart, or somebody else opened it. If it was none of ours, destroy its secret id; then run the bootstrap of Vault for a new one`,
      )
    }
    throw error
  }
}

function fromDirectory(directory: string): WrappedSource {
  return async (signal) => {
    const read = async (name: string) =>
      (await waitForFile(join(directory, name), { signal, variable: 'ARES_VAULT_CREDENTIALS' })).trim()
    return { roleId: await read('role-id'), wrappedSecretId: await read('wrapped-secret-id') }
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
