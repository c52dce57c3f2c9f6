import { setTimeout as sleep } from 'node:timers/promises'
import { type VaultClient, VaultError, type VaultHealth } from '@ares/chassis'
import { readVaultKeys, writeVaultKeys } from './vault-keys'

export interface OpenVaultOptions {
  readonly vault: VaultClient
  /** See VaultKeys. */
  readonly keyFile: string
  /** How long the server may take to answer and to become active; default 30 s. */
  readonly limitMs?: number
  readonly signal?: AbortSignal
  /** Asked while waiting: a reason to give up, e.g. that the server's process has ended. */
  readonly givenUp?: () => string | undefined
}

/**
 * Brings a server from whatever state it is in to active: initializes a new one (one share) and unseals a sealed one.
 * @returns what was changed: `initialize`, `unseal`, or nothing
 * @throws when the key file is lost, or the server does not become active in time
 */
export async function openVault(options: OpenVaultOptions): Promise<string[]> {
  const { vault, keyFile, signal } = options
  const changes: string[] = []
  let health = await waitForHealth(options, 'an answer', () => true)

  if (health.state === 'uninitialized') {
    if (await readVaultKeys(keyFile)) {
      throw new Error(
        `The Vault server is empty, but ${keyFile} holds the keys of an earlier one. ` +
          'Restore its data, or move the key file away to start afresh.',
      )
    }
    // One raft election: 1-2 s with performance_multiplier = 1, 10 s without.
    const answer = await vault.init(1, { timeoutMs: 60_000, signal })
    const [unsealKey] = answer.unsealKeys
    if (!unsealKey) throw new Error('The Vault server gave no unseal key: is it set up with another kind of seal?')
    // Before anything else: this answer is given once.
    await writeVaultKeys(keyFile, { unsealKey, rootToken: answer.rootToken })
    changes.push('initialize')
    health = await waitForHealth(options, 'an answer', ({ state }) => state !== 'uninitialized')
  }

  if (health.state === 'sealed') {
    const keys = await readVaultKeys(keyFile)
    if (!keys) throw new Error(lostKey(keyFile))
    const { sealed } = await unseal(vault, keys.unsealKey, keyFile, signal)
    if (sealed) throw new Error(`The Vault server wants more than the one unseal key in ${keyFile}.`)
    changes.push('unseal')
  }
  // Unsealed is not ready: raft answers as a standby for a moment more.
  await waitForHealth(options, 'readiness', ({ state }) => state === 'active')
  return changes
}

const lostKey = (keyFile: string): string =>
  `The Vault server is sealed and ${keyFile}, which holds its unseal key, is missing. Restore that file. ` +
  'Without it this store can never be opened again: then remove the data of the server to start afresh.'

async function unseal(
  vault: VaultClient,
  key: string,
  keyFile: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly sealed: boolean }> {
  try {
    return await vault.unseal(key, { signal })
  } catch (error) {
    if (error instanceof VaultError && error.status === 400) {
      throw new Error(`The unseal key in ${keyFile} does not open this Vault server: it belongs to another store.`)
    }
    throw error
  }
}

async function waitForHealth(
  { vault, limitMs = 30_000, signal, givenUp }: OpenVaultOptions,
  what: string,
  accepted: (health: VaultHealth) => boolean,
): Promise<VaultHealth> {
  const end = Date.now() + limitMs
  for (;;) {
    const reason = givenUp?.()
    if (reason) throw new Error(reason)
    const health = await vault.health({ timeoutMs: 2_000, signal }).catch((error: unknown) => error as VaultError)
    if (!(health instanceof Error) && accepted(health)) return health
    signal?.throwIfAborted()
    if (Date.now() > end) {
      const last = health instanceof Error ? health.message : `it is ${health.state}`
      throw new Error(`The Vault server did not get to ${what} within ${limitMs / 1_000} s: ${last}`)
    }
    await sleep(50, undefined, { signal })
  }
}
