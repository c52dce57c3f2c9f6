import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { postgresFolder } from './postgres'

/** The folder that holds everything a stack keeps between starts: `.ares/` in the repository, unless told otherwise. */
export class StateFolder {
  readonly path: string

  constructor(path: string) {
    this.path = resolve(path)
  }

  readonly at = (...parts: string[]): string => join(this.path, ...parts)

  get postgres(): string {
    return this.at('postgres')
  }
  get vault(): string {
    return this.at('vault')
  }
  /** Certificate bundle and the broker's certificate; nothing else. */
  get certs(): string {
    return this.at('certs')
  }
  get brokerData(): string {
    return this.at('broker')
  }
  get emqxKeys(): string {
    return this.at('emqx-api-keys')
  }
  get logs(): string {
    return this.at('logs')
  }
  get lock(): string {
    return this.at('stack.json')
  }
  get firstLogin(): string {
    return this.at('first-login.json')
  }

  /** True when a stack has been prepared here. */
  get prepared(): boolean {
    return existsSync(this.at('prepared'))
  }

  markPrepared(): void {
    writeFileSync(this.at('prepared'), `${new Date().toISOString()}\n`)
  }

  make(): void {
    mkdirSync(this.path, { recursive: true })
    // Passable, not listable: as root, PostgreSQL runs under another account and has to get to its own folder.
    chmodSync(this.path, process.getuid?.() === 0 ? 0o711 : 0o700)
    mkdirSync(this.logs, { recursive: true, mode: 0o700 })
    mkdirSync(this.brokerData, { recursive: true, mode: 0o700 })
  }

  /** Everything in it, and PostgreSQL's data where that had to lie elsewhere. */
  remove(): void {
    rmSync(postgresFolder(this.postgres), { recursive: true, force: true })
    rmSync(this.path, { recursive: true, force: true })
  }

  readJson<T>(name: string): T | undefined {
    try {
      return JSON.parse(readFileSync(this.at(name), 'utf8')) as T
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw new Error(`${this.at(name)} cannot be read: ${(error as Error).message}. Remove it, or run: npm run init`)
    }
  }

  /** Whole or not at all; readable by nobody else. */
  writeJson(name: string, value: object): void {
    const file = this.at(name)
    writeFileSync(`${file}.new`, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 })
    renameSync(`${file}.new`, file)
  }
}
