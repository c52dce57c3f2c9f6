import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { bornAt, goneWithin, isAlive } from './foreign-process'
import { StackProblem } from './problem'
import type { StateFolder } from './state-folder'

interface Named {
  readonly pid: number
  readonly born: string | undefined
}

interface Contents extends Named {
  readonly startedAt: string
  /** Process groups of the stack's parts, by name. */
  readonly parts: Readonly<Record<string, Named>>
}

const FILE = 'stack.json'

/** Says who runs the stack of a state folder, so that it runs once and can be found. */
export class StackLock {
  private parts: Record<string, Named> = {}

  private constructor(
    private readonly state: StateFolder,
    private readonly startedAt: string,
  ) {}

  /**
   * Takes the lock; one whose holder is gone is taken over, and what the holder left running is ended.
   * @throws StackProblem when the stack runs
   */
  static async take(state: StateFolder, say: (line: string) => void): Promise<StackLock> {
    const before = state.readJson<Contents>(FILE)
    if (before && isSame(before)) {
      throw new StackProblem(
        'The stack runs already',
        `process ${before.pid} has it since ${before.startedAt} (${state.lock})`,
        'Stop it with: npm stop. Or give this one a folder and ports of its own: --state DIR --http-port N --mqtt-port N',
      )
    }
    if (before) {
      say(`Process ${before.pid} ended without stopping its stack: taking over.`)
      await endParts(before)
    }
    const lock = new StackLock(state, new Date().toISOString())
    lock.write()
    return lock
  }

  /** @returns who runs the stack; undefined when nobody does */
  static holder(state: StateFolder): { readonly pid: number; readonly startedAt: string } | undefined {
    const contents = state.readJson<Contents>(FILE)
    return contents && isSame(contents) ? contents : undefined
  }

  /** Ends what a holder that is gone left running. @returns false when there was nothing */
  static async clearStale(state: StateFolder): Promise<boolean> {
    const contents = state.readJson<Contents>(FILE)
    if (!contents || isSame(contents)) return false
    await endParts(contents)
    rmSync(state.lock, { force: true })
    return true
  }

  /** Remembers a part, to be ended by the next holder should we be killed. */
  holds(name: string, pid: number | undefined): void {
    if (pid) this.parts[name] = { pid, born: bornAt(pid) }
    else delete this.parts[name]
    this.write()
  }

  release(): void {
    rmSync(this.state.lock, { force: true })
  }

  private write(): void {
    const contents: Contents = {
      pid: process.pid,
      born: bornAt(process.pid),
      startedAt: this.startedAt,
      parts: this.parts,
    }
    this.state.writeJson(FILE, contents)
  }
}

const isSame = ({ pid, born }: Named): boolean => isAlive(pid) && bornAt(pid) === born

/** The order in which parts are ended: who asks before who answers. PostgreSQL and Vault look after their own data. */
async function endParts({ parts }: Contents): Promise<void> {
  for (const [name, part] of Object.entries(parts).reverse()) {
    if (!isSame(part)) continue
    signalGroup(part.pid, name === 'postgres' ? 'SIGINT' : 'SIGTERM')
    if (await goneWithin(part.pid, 10_000)) continue
    signalGroup(part.pid, 'SIGKILL')
    await sleep(100)
  }
}

/** Signals a process and all it started. Every part leads a group of its own. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal)
  } catch {
    try {
      process.kill(pid, signal)
    } catch {
      // it is gone, which is what we want
    }
  }
}
