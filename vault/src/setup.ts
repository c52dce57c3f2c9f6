import type { VaultAnswer, VaultClient } from '@ares/chassis'

type Wanted = string | number | boolean | readonly string[]

/**
 * Changes Vault only where it is not yet as wanted, and remembers what was changed: a second run changes nothing.
 */
export class Setup {
  readonly changes: string[] = []

  constructor(
    readonly vault: VaultClient,
    private readonly tell: { change(what: string): void; warning(text: string): void },
  ) {}

  /** Carries out a change that is known to be needed. */
  async change<T>(what: string, act: () => Promise<T>): Promise<T> {
    const result = await act()
    this.record([what])
    return result
  }

  /** Remembers changes that were made elsewhere, e.g. to files. */
  record(changes: readonly string[]): void {
    this.changes.push(...changes)
    for (const change of changes) this.tell.change(change)
  }

  /**
   * Writes `wanted` to `path` when a field of it is missing or different. Lists are compared without order, durations must
   * be seconds, as Vault reads them back.
   * PKI roles are replaced whole by a write, so `wanted` must be the whole role.
   */
  async ensure(path: string, wanted: Readonly<Record<string, Wanted>>): Promise<void> {
    const now = (await this.vault.read(path))?.data
    if (now && Object.entries(wanted).every(([name, value]) => isSame(now[name], value))) return
    const answer = await this.change(`write ${path}`, () => this.vault.write(path, wanted))
    // A field that this server does not know is only a warning to it; to us it may be a guard that is not there.
    for (const warning of answer.warnings) this.tell.warning(`${path}: ${warning}`)
  }
}

/** A text field of an answer. @throws when it is not there: the server is not what we take it for */
export function textOf(answer: VaultAnswer | undefined, name: string, source: string): string {
  const value = answer?.data[name]
  if (typeof value === 'string' && value !== '') return value
  throw new Error(`Vault's answer to ${source} has no ${name}.`)
}

const isSame = (now: unknown, wanted: Wanted): boolean =>
  Array.isArray(wanted)
    ? JSON.stringify([...wanted].sort()) === JSON.stringify([...(Array.isArray(now) ? now : [])].sort())
    : now === wanted
