import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { assertValidAt, CertificateProblem, isRoot, labelOf, splitPem, verifyChain } from './certificates'

export interface FileWait {
  /** How long the file may take to appear; default 60 s. */
  readonly limitMs?: number
  readonly signal?: AbortSignal
  readonly logger?: { info(message: string, fields?: object): void }
  /** Name of the variable that holds the path, for messages; default ARES_CA_FILE. */
  readonly variable?: string
}

/**
 * Reads full_chain_ca.crt. It must hold the root and the intermediate under it, both valid now: a peer may send its leaf
 * alone, and without the root nothing verifies. The file is written by the bootstrap, so it may appear after the start.
 * @throws CertificateProblem that names the variable, the file and what is missing
 */
export async function loadCaFile(file: string, wait: FileWait = {}): Promise<string> {
  const variable = wait.variable ?? 'ARES_CA_FILE'
  const text = await waitForFile(file, { ...wait, variable })
  const problem = problemOfBundle(text)
  if (problem) throw new CertificateProblem(`${variable} ${file} ${problem}`)
  return text
}

/**
 * Follows full_chain_ca.crt: while the intermediate is rotated it is replaced twice. A bundle that cannot be used is told
 * and looked at again at the next change; the one in use stays.
 * @param pem what is in use now
 */
export class CaFileWatch {
  private readonly timer: NodeJS.Timeout
  private stamp: string | undefined
  /** Of the file as it is now; undefined when it is in use. */
  problem: string | undefined

  constructor(
    private readonly file: string,
    private pem: string,
    private readonly on: { taken(pem: string): void; refused(problem: string): void },
    everyMs: number = FOLLOW_EVERY_MS,
  ) {
    this.timer = setInterval(() => this.look(), everyMs)
    this.timer.unref()
  }

  close(): void {
    clearInterval(this.timer)
  }

  private look(): void {
    try {
      const { ino, size, mtimeMs } = statSync(this.file)
      const stamp = `${ino}:${size}:${mtimeMs}`
      if (stamp === this.stamp) return
      const text = readFileSync(this.file, 'utf8')
      this.stamp = stamp
      this.problem = problemOfBundle(text)
      if (this.problem) this.on.refused(`${this.file} ${this.problem}`)
      else if (text !== this.pem) {
        this.pem = text
        this.on.taken(text)
      }
    } catch (error) {
      // Nobody removes it while we run; if somebody does, what is in use stays.
      const problem = `cannot be read (${(error as NodeJS.ErrnoException).code ?? error})`
      if (problem === this.problem) return
      this.problem = problem
      this.stamp = undefined
      this.on.refused(`${this.file} ${problem}`)
    }
  }
}

const FOLLOW_EVERY_MS = 2_000

/**
 * Waits until a file that another part writes is there and not empty, then gives its text.
 * @throws CertificateProblem after the limit, or at once when the path cannot become right by waiting
 */
export async function waitForFile(file: string, wait: FileWait = {}): Promise<string> {
  const { limitMs = 60_000, signal, logger, variable = 'the setting' } = wait
  const end = Date.now() + limitMs
  for (let told = false; ; told = true) {
    const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      const why = error.code === 'EISDIR' ? 'is a directory, a file is wanted' : `cannot be read (${error.code})`
      throw new CertificateProblem(`${variable} ${file} ${why}`)
    })
    if (text.trim() !== '') return text
    if (Date.now() >= end) {
      throw new CertificateProblem(
        `${variable} ${file} is still missing after ${Math.round(limitMs / 1_000)} s. The bootstrap of Vault writes it: did it run, and is this its folder?`,
      )
    }
    if (!told) logger?.info(`waiting for ${file}`, { variable, file, limitMs })
    await sleep(Math.min(LOOK_EVERY_MS, Math.max(1, end - Date.now())), undefined, { signal })
  }
}

const LOOK_EVERY_MS = 250

/** What keeps a CA bundle from being used, or undefined. */
function problemOfBundle(text: string): string | undefined {
  const blocks = splitPem(text)
  if (blocks.some((block) => block.includes('PRIVATE KEY'))) {
    return 'holds a private key: this file is read by everyone and must hold certificates only'
  }
  try {
    const certificates = blocks.map((block) => new X509Certificate(block))
    if (certificates.length === 0) return 'holds no certificate'
    const leaf = certificates.find((certificate) => !certificate.ca)
    if (leaf) return `holds ${labelOf(leaf)}, which is not a CA`
    const intermediates = certificates.filter((certificate) => !isRoot(certificate))
    const roots = certificates.filter(isRoot)
    if (roots.length === 0) {
      return `holds the intermediate (${intermediates.map(labelOf).join(', ')}) but not the root above it: write both, intermediate and root, into it`
    }
    if (intermediates.length === 0) {
      return `holds the root (${roots.map(labelOf).join(', ')}) but no intermediate: write both, intermediate and root, into it`
    }
    for (const root of roots) assertValidAt(root, new Date())
    for (const intermediate of intermediates) verifyChain(intermediate, blocks)
    return undefined
  } catch (error) {
    return `is not usable: ${error instanceof Error ? error.message : String(error)}`
  }
}
