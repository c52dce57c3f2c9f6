import { DomainError } from '@ares/chassis'
import { topics } from '@ares/proto'
import { contractReport, type PlainMessage, type PlainReport, type PlainRequest } from '@ares/proto/plain-telemetry'
import { type IngestResponse, type Receipt, type Refusal, Report, Result } from '@ares/proto/telemetry/v1/telemetry'
import { isDatabaseAway } from '../../database/faults'
import type { DeviceBudget } from './device-budget'
import type { DeviceHardware } from './hardware'
import type { HardwareCache } from './hardware.cache'
import { type Fate, type PendingDeadLetter, PendingRows } from './ingest.batch'
import type { IngestMetrics } from './ingest.metrics'
import { DataRejected, type IngestStore } from './ingest.store'
import { type Check, checkMessage, isAboutHardware, type RefusalReason } from './report.check'

const MAX_MESSAGES = 5_000

/** What ingestion tells as it goes; each may be left out. */
export interface IngestObservers {
  /** Limits what one device may say. */
  readonly budget?: Pick<DeviceBudget, 'take' | 'giveBack' | 'noteRefused'>
  readonly metrics?: Pick<IngestMetrics, 'observe'>
}

/**
 * Takes batches of messages and answers when they are committed.
 *
 *   batch ──check──▶ rows + dead letters ──one transaction──▶ answer
 *                                   │
 *                                   └─ PostgreSQL rejects the data ─▶ halves, each on its own ─▶ … ─▶ the one message
 *                                      that is to blame becomes a dead letter (rejected_by_store)
 *
 * A batch may come again, whole or in parts: what is there already is a duplicate.
 */
export class IngestService {
  constructor(
    private readonly hardware: Pick<HardwareCache, 'find' | 'recheck'>,
    private readonly store: Pick<IngestStore, 'commit'>,
    private readonly lastSeen: { note(deviceId: string, at: number): void },
    private readonly now: () => number = Date.now,
    private readonly observers: IngestObservers = {},
  ) {}

  /** @throws DomainError invalid when the batch breaks a limit of the contract, unavailable when the store is away */
  async ingest(request: PlainRequest): Promise<IngestResponse> {
    if (!UUID.test(request.batchId)) throw invalid('batch_id must be a UUID')
    if (request.messages.length === 0) throw invalid('a batch has at least one message')
    if (request.messages.length > MAX_MESSAGES) throw invalid(`a batch has at most ${MAX_MESSAGES} messages`)
    const { budget, metrics } = this.observers
    const { checked, devices } = await this.check(request.messages)
    const spent = this.spend(checked)
    const startedAt = performance.now()
    try {
      await this.commit(request.batchId, checked, devices)
    } catch (error) {
      // The batch comes again: what failed must not cost the devices their budget.
      for (const [deviceId, cost] of spent) budget?.giveBack(deviceId, cost)
      if (isDatabaseAway(error)) {
        throw new DomainError(
          'unavailable',
          'store_unavailable',
          'PostgreSQL cannot take the batch now',
          {},
          { cause: error },
        )
      }
      throw error
    }
    this.noteSeen(checked, devices)
    const response = answer(checked, devices)
    metrics?.observe(response, performance.now() - startedAt)
    return response
  }

  /** Takes what the messages cost from the budgets of their devices; what is over is refused. @returns what was taken */
  private spend(checked: readonly CheckedMessage[]): Map<string, number> {
    const spent = new Map<string, number>()
    const { budget } = this.observers
    if (!budget) return spent
    for (const entry of checked) {
      if (entry.check.kind !== 'accepted') continue
      const { deviceId } = entry.message
      const cost = entry.check.samples.length
      if (budget.take(deviceId, cost)) spent.set(deviceId, (spent.get(deviceId) ?? 0) + cost)
      else entry.check = { kind: 'refused', reason: 'over_budget', detail: OVER_BUDGET }
    }
    return spent
  }

  private async check(messages: readonly PlainMessage[]): Promise<{ checked: CheckedMessage[]; devices: Devices }> {
    const now = this.now()
    const devices = await this.hardware.find(new Set(messages.map((message) => message.deviceId)))
    const checked = messages.map((message, index): CheckedMessage => {
      const receivedAt = message.receivedAt ?? now
      return {
        index,
        message,
        receivedAt: Number.isNaN(receivedAt) ? now : receivedAt,
        check: checkMessage(message, devices.get(message.deviceId), now),
        fate: 'duplicate',
      }
    })
    // A component that was attached a moment ago must not cost its first report: look again before refusing.
    const doubtful = checked.filter(({ check }) => check.kind === 'refused' && isAboutHardware(check.reason))
    if (doubtful.length === 0) return { checked, devices }
    const fresh = await this.hardware.recheck(new Set(doubtful.map(({ message }) => message.deviceId)))
    for (const [deviceId, hardware] of fresh) devices.set(deviceId, hardware)
    for (const entry of doubtful) entry.check = checkMessage(entry.message, devices.get(entry.message.deviceId), now)
    return { checked, devices }
  }

  /** Commits the messages and notes the fate of each. */
  private async commit(batchId: string, checked: readonly CheckedMessage[], devices: Devices): Promise<void> {
    const rows = new PendingRows()
    const deadLetters: PendingDeadLetter[] = []
    const dead = new Set<number>()
    checked.forEach((entry, position) => {
      if (entry.check.kind === 'accepted') {
        for (const sample of entry.check.samples) rows.add(position, sample)
      } else {
        dead.add(position)
        deadLetters.push(deadLetter(entry, entry.check, devices.get(entry.message.deviceId)))
      }
    })
    const messages = checked.map(({ message, receivedAt }) => ({
      deviceId: bounded(storable(message.deviceId), MAX_ID),
      receivedAt,
      sequence: devices.get(message.deviceId) && sequenceOf(message),
    }))
    try {
      const fates = await this.store.commit({ batchId, rows, deadLetters, messages, dead })
      fates.forEach((fate, position) => {
        const entry = checked[position]
        if (entry) entry.fate = fate
      })
    } catch (error) {
      if (!(error instanceof DataRejected)) throw error
      await this.commitInParts(batchId, checked, devices, error)
    }
  }

  private async commitInParts(
    batchId: string,
    checked: readonly CheckedMessage[],
    devices: Devices,
    error: DataRejected,
  ): Promise<void> {
    const [only] = checked
    if (checked.length > 1) {
      const middle = checked.length >> 1
      await this.commit(batchId, checked.slice(0, middle), devices)
      await this.commit(batchId, checked.slice(middle), devices)
    } else if (only?.check.kind === 'accepted') {
      only.check = { kind: 'refused', reason: 'rejected_by_store', detail: error.message }
      await this.commit(batchId, checked, devices)
    } else {
      throw error // a dead letter that cannot be stored: ours to mend, see `deadLetter`
    }
  }

  private noteSeen(checked: readonly CheckedMessage[], devices: Devices): void {
    const { budget } = this.observers
    for (const { message, receivedAt, check } of checked) {
      if (!devices.get(message.deviceId)) continue
      this.lastSeen.note(message.deviceId, receivedAt)
      if (check.kind === 'refused' && check.reason === 'over_budget') budget?.noteRefused(message.deviceId, receivedAt)
    }
  }
}

type Devices = Map<string, DeviceHardware | undefined>

interface CheckedMessage {
  /** Position in the request. */
  readonly index: number
  readonly message: PlainMessage
  readonly receivedAt: number
  check: Check
  fate: Fate
}

function answer(checked: readonly CheckedMessage[], devices: Devices): IngestResponse {
  const refusals: Refusal[] = []
  const sequences = new Map<string, bigint[]>()
  for (const { index, message, check, fate } of checked) {
    const wantsReceipts = devices.get(message.deviceId)?.wantsReceipts ?? false
    if (check.kind === 'refused') {
      const detail = bounded(check.detail, 256)
      refusals.push({ index, reason: check.reason, detail, notifyDevice: wantsReceipts })
    } else if (wantsReceipts && fate !== 'dead_lettered' && message.content?.$case === 'report') {
      const { sequence } = message.content.value
      if (sequence === undefined) continue
      const ofDevice = sequences.get(message.deviceId)
      if (ofDevice) ofDevice.push(sequence)
      else sequences.set(message.deviceId, [sequence])
    }
  }
  return {
    results: checked.map(({ fate }) => RESULT_OF[fate]),
    refusals,
    receipts: [...sequences].map(([deviceId, ofDevice]): Receipt => ({ deviceId, sequences: ofDevice })),
  }
}

const RESULT_OF: Readonly<Record<Fate, Result>> = {
  committed: Result.RESULT_COMMITTED,
  duplicate: Result.RESULT_DUPLICATE,
  dead_lettered: Result.RESULT_DEAD_LETTERED,
}

/** Whatever a message holds, its dead letter can be stored: payloads are bytes, and texts are made storable. */
function deadLetter(
  entry: CheckedMessage,
  { reason, detail }: RefusalReason,
  device: DeviceHardware | undefined,
): PendingDeadLetter {
  const { deviceId, topic, payload, content } = entry.message
  return {
    index: entry.index,
    deviceId: bounded(storable(deviceId), MAX_ID),
    topic: bounded(storable(topic || topics.telemetry(deviceId)), 512),
    payload,
    reason: bounded(storable(reason), 64),
    detail: bounded(storable(detail), 256),
    receivedAt: entry.receivedAt,
    organizationId: device?.organizationId,
    report: content?.$case === 'report' ? bytesOf(content.value) : undefined,
  }
}

/** undefined for an instant that no Date can hold: such a letter cannot be replayed. */
function bytesOf(report: PlainReport): Buffer | undefined {
  if ([report, ...report.samples].some(({ timestamp }) => Number.isNaN(timestamp))) return undefined
  return Buffer.from(Report.encode(contractReport(report)).finish())
}

const sequenceOf = ({ content }: PlainMessage): bigint | undefined =>
  content?.$case === 'report' ? content.value.sequence : undefined

const OVER_BUDGET = 'the device says more than its budget allows; the letters can be replayed'

/** Ids of devices are shorter; what a topic may hold instead must still fit into an index. */
const MAX_ID = 128

/** PostgreSQL's text takes every character but NUL. */
const storable = (text: string): string => (text.includes('\u0000') ? text.replaceAll('\u0000', '\uFFFD') : text)

const bounded = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`

const invalid = (message: string): DomainError => new DomainError('invalid', 'invalid_batch', message)

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
