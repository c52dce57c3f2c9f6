import { mkdirSync, mkdtempSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Stack, type StackOptions, terminalProgress } from '@ares/embedded'
import { COMMIT_TIMES } from './committed'

/** emqx.conf protects a system that people use; here the point is to find out how much goes through. */
export const NO_LIMITS: Readonly<Record<string, string>> = {
  EMQX_LISTENERS__SSL__DEVICES__MAX_CONN_RATE: '100000/s',
  EMQX_LISTENERS__SSL__DEVICES__MESSAGES_RATE: '1000000/s',
  EMQX_LISTENERS__SSL__DEVICES__BYTES_RATE: '1024MB/s',
  EMQX_LISTENERS__SSL__DEVICES__LIMITER__MESSAGES__RATE: '10000000/s',
}

/** Few devices that say as much as they can, and nobody who slows them. */
const NO_LIMITS_OF_API = { ARES_GOVERNOR: 'false', ARES_DEVICE_ROWS_PER_SECOND: '0' }

export interface BenchStackOptions {
  readonly listeners?: 1 | 2
  readonly emqx?: string
  /** Broker that the listeners use in place of the stack's. */
  readonly broker?: string
  /** Folder for CPU profiles of listener and api. */
  readonly profile?: string
  readonly env?: StackOptions['env']
}

/**
 * A stack of its own in a folder that is removed afterwards, without limits on devices. PostgreSQL keeps fsync on. A signal
 * stops it, also while it starts, and ends the process.
 */
export async function startBenchStack(options: BenchStackOptions): Promise<Stack> {
  const listener = {
    ...profiling(options.profile),
    ...(options.broker ? { ARES_MQTT_URL: options.broker } : {}),
    // While the floor is measured nothing may be queued for a listener that is stopped.
    ARES_LEAVE_GROUP_ON_STOP: 'true',
    ...options.env?.listener,
  }
  const stack = new Stack({
    stateDir: mkdtempSync(join(tmpdir(), 'ares-bench-')),
    ports: { http: 0, mqtt: 0, wss: 0 },
    listeners: options.listeners,
    emqx: options.emqx,
    postgresSettings: COMMIT_TIMES,
    env: {
      ...options.env,
      api: { ...NO_LIMITS_OF_API, ...profiling(options.profile), ...options.env?.api },
      broker: { ...(options.emqx ? {} : profiling(options.profile)), ...NO_LIMITS, ...options.env?.broker },
      listener,
      'listener-2': listener,
    },
    progress: terminalProgress(),
    onEvent: (event) => process.stderr.write(`${JSON.stringify(event)}\n`),
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void stack.stop().then(() => process.exit(128 + constants.signals[signal])))
  }
  await stack.start()
  return stack
}

const PROFILER = join(__dirname, '../src/profile-on-signal.cjs')

function profiling(folder: string | undefined): Record<string, string> {
  if (!folder) return {}
  mkdirSync(folder, { recursive: true })
  return { NODE_OPTIONS: `--require=${JSON.stringify(PROFILER)}`, ARES_BENCH_PROFILE_DIR: resolve(folder) }
}
