import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BenchDevice, BenchProcess, COMMIT_TIMES, makeBenchFleet } from '@ares/bench'
import { type PartEvent, type Progress, Stack } from '@ares/embedded'
import type { ChaosCase, Stage } from './chaos-cases'
import { Link } from './link'
import type { PublisherNews, PublisherOrder } from './publisher'
import { CaseRows, type Reconciliation } from './reconciliation'

export interface ChaosOptions {
  /** How long each case publishes. */
  readonly seconds: number
  /** Messages a second, of all devices together. */
  readonly rate: number
  readonly devices: number
  readonly emqx?: string
  readonly progress?: Progress
  readonly onEvent?: (event: PartEvent) => void
  /** Rejects when the run is to stop while its stack starts. */
  readonly stopped?: Promise<never>
}

export interface CaseResult extends Reconciliation {
  readonly name: string
  readonly what: string
  /** From the kill, or from the end of the outage, to the commit of the last row that came more than a second late. */
  readonly recoveryMs: number
}

/** True when nothing that was promised is missing, and nothing is there twice. */
export const isHealthy = (result: Reconciliation): boolean =>
  result.missing === 0 && result.duplicates === 0 && result.strangers === 0 && result.acknowledged > 0

/** A stack with two listeners and the limits of emqx.conf, cuttable links, and devices that publish whatever happens. */
export class ChaosRun {
  private constructor(
    private readonly options: ChaosOptions,
    private readonly stack: Stack,
    private readonly links: { readonly toDatabase: Link; readonly toBroker: Link },
    private readonly devices: readonly BenchDevice[],
  ) {}

  static async start(options: ChaosOptions): Promise<ChaosRun> {
    // The links are there before the ports that they lead to: the stack chooses those when it starts.
    const toDatabase = await Link.open(() => stack.ports.postgres)
    const toBroker = await Link.open(() => stack.ports.mqttServices)
    const links = { toDatabase, toBroker }
    const stack = new Stack({
      stateDir: mkdtempSync(join(tmpdir(), 'ares-chaos-')),
      ports: { http: 0, mqtt: 0, wss: 0 },
      listeners: 2,
      emqx: options.emqx,
      postgresSettings: COMMIT_TIMES,
      detours: { database: toDatabase.port, services: toBroker.port },
      progress: options.progress,
      onEvent: options.onEvent,
    })
    try {
      await Promise.race([stack.start(), ...(options.stopped ? [options.stopped] : [])])
      const plan = { devices: options.devices, components: 1, wantsReceipts: true }
      return new ChaosRun(options, stack, links, await makeBenchFleet(stack.client(), plan))
    } catch (error) {
      await stack.stop()
      await Promise.all([toDatabase.close(), toBroker.close()])
      throw error
    }
  }

  /** Publishes, does harm a quarter of the way, and holds what the publishers know against the rows. */
  async run({ name, what, until, strike }: ChaosCase): Promise<CaseResult> {
    const { stack, links, devices } = this
    const { seconds, rate } = this.options
    const stage: Stage = { stack, ...links, outageMs: Math.min(20_000, (seconds * 1_000) / 3) }
    const rows = CaseRows.since(stack.urls.database, new Date())
    const publisher = BenchProcess.start<PublisherOrder, PublisherNews>(__dirname, 'publisher')
    try {
      publisher.tell({ type: 'begin', url: stack.urls.mqtt, devices, rate, until })
      await publisher.next('begun')
      const beganAt = Date.now()
      await sleep(seconds * 250)
      await strike(stage)
      const curedAt = Date.now()
      await sleep(Math.max(0, beganAt + seconds * 1_000 - Date.now()))
      publisher.tell({ type: 'finish', limitMs: FINISH_MS })
      const { records } = await publisher.next('finished', FINISH_MS + 30_000)
      for (const part of ['postgres', 'api', 'broker', 'listener', 'listener-2'] as const) {
        await stack.waitUntilReady(part, 60_000)
      }
      const found = await rows.reconcile(devices, records, RECONCILE_MS)
      const recoveryMs = Math.max(0, Math.round((await rows.lastLateCommit()) - curedAt))
      return { name, what, ...found, recoveryMs }
    } finally {
      await publisher.stop()
    }
  }

  async stop(): Promise<void> {
    await this.stack.stop()
    await Promise.all([this.links.toDatabase.close(), this.links.toBroker.close()])
    this.stack.state.remove()
  }
}

/** How long the publishers may take to get rid of what has piled up. */
const FINISH_MS = 90_000
/** What the broker has acknowledged may still wait for the session of a dead listener to expire. */
const RECONCILE_MS = 60_000
