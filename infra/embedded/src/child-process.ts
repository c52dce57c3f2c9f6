import { type ChildProcess, spawn } from 'node:child_process'
import { connect } from 'node:net'
import { extname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { PartLog } from './part-log'
import { REPOSITORY } from './repository'
import { signalGroup } from './stack-lock'
import type { Running } from './supervised-part'

export interface LaunchOptions {
  readonly env: NodeJS.ProcessEnv
  readonly log: PartLog
  /** How long it may take until it serves. */
  readonly readyWithinMs: number
  /** How long it may take to stop before it is killed. */
  readonly stopWithinMs: number
  /** For Node itself. */
  readonly nodeFlags?: readonly string[]
  /** Undefined when it serves, otherwise what is still missing. */
  probe(): Promise<string | undefined>
  /** What the process says over IPC; whatever is returned is sent back. */
  onMessage?(message: unknown): Promise<object | undefined>
}

/** A program of the repository, as TypeScript and as what `npm run build` makes of it. */
export interface Entry {
  readonly source: string
  readonly built: string
}

/** Runs a program in a Node of its own: from its source, or built when we are. It ends when we end, however that comes
 *  about. */
export function launchNode(entry: Entry, options: LaunchOptions): Running {
  const extension = extname(__filename)
  const fromSource = extension === '.ts'
  const flags = [
    ...(options.nodeFlags ?? []),
    ...(fromSource ? ['--conditions=source', `--import=${pathToFileURL(require.resolve('tsx')).href}`] : []),
    `--import=${pathToFileURL(join(__dirname, `end-with-parent${extension}`)).href}`,
  ]
  const child = spawn(process.execPath, [...flags, join(REPOSITORY, fromSource ? entry.source : entry.built)], {
    cwd: REPOSITORY,
    env: options.env,
    detached: true, // a group of its own: Ctrl-C is for us, who stop things in order
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  child.on('message', (message) => {
    options
      .onMessage?.(message)
      .then((answer) => answer && child.connected && child.send(answer))
      .catch((error: Error) =>
        options.log.write(`[stack] a request of this process was not answered: ${error.message}\n`),
      )
  })
  return running(child, options)
}

/** Runs a command line, as the shell reads it. */
export function launchCommand(command: string, options: LaunchOptions): Running {
  const child = spawn(command, {
    cwd: REPOSITORY,
    env: options.env,
    shell: true,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return running(child, options)
}

/** The few variables of ours that a process needs; what it is told comes on top. */
export function plainEnvironment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const kept = ['PATH', 'HOME', 'TMPDIR', 'LANG', 'TZ', 'SYSTEMROOT', 'XDG_CACHE_HOME']
  const own = kept.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []))
  return { ...Object.fromEntries(own), ...more }
}

/** For a service: ready when GET /health/ready says so, otherwise the checks that fail. */
export async function readinessOf(opsPort: number): Promise<string | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${opsPort}/health/ready`, { signal: AbortSignal.timeout(3_000) })
    if (response.ok) return undefined
    const { checks = {} } = (await response.json()) as { checks?: Record<string, { ok: boolean; detail?: string }> }
    const failing = Object.entries(checks).filter(([, check]) => !check.ok)
    return failing.map(([name, { detail }]) => (detail ? `${name} (${detail})` : name)).join(', ') || 'not ready'
  } catch {
    return `nobody answers on port ${opsPort}`
  }
}

/** For anything that listens. */
export function listensOn(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: 2_000 })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
    socket.once('timeout', () => end(false))
  })
}

function running(child: ChildProcess, options: LaunchOptions): Running {
  child.stdout?.on('data', options.log.write)
  child.stderr?.on('data', options.log.write)
  const pid = child.pid ?? 0
  const life = { over: false }
  const ended = new Promise<string>((resolve) => {
    const end = (why: string) => {
      life.over = true
      resolve(why)
    }
    child.once('exit', (code, signal) => end(signal ? `killed by ${signal}` : `exit code ${code}`))
    child.once('error', (error) => end(error.message))
  })
  const stop = async () => {
    signalGroup(pid, 'SIGTERM')
    const killer = setTimeout(() => signalGroup(pid, 'SIGKILL'), options.stopWithinMs)
    await ended
    clearTimeout(killer)
  }
  return { pid, ended, stop, ready: untilReady(life, ended, options), kill: (signal) => signalGroup(pid, signal) }
}

async function untilReady(
  life: { readonly over: boolean },
  ended: Promise<string>,
  { probe, readyWithinMs, log }: LaunchOptions,
): Promise<void> {
  const giveUpAt = Date.now() + readyWithinMs
  for (;;) {
    const missing = await probe()
    if (life.over) throw new Error(`it ended (${await ended}). Its last words:\n${lastWords(log)}`)
    if (missing === undefined) return
    if (Date.now() > giveUpAt) {
      throw new Error(`it is not ready after ${readyWithinMs / 1000} s: ${missing}. Its last words:\n${lastWords(log)}`)
    }
    await sleep(50)
  }
}

const lastWords = (log: PartLog): string =>
  log
    .tail(8)
    .map((line) => `    ${line.slice(0, 500)}`)
    .join('\n')
