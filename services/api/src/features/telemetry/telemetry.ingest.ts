import { DomainError } from '@ares/chassis'
import { topics } from '@ares/proto'
import {
  type IngestRequest,
  type IngestResponse,
  type Message,
  type Receipt,
  type Refusal,
  Result,
} from '@ares/proto/telemetry/v1/telemetry'
import { isDatabaseAway } from '../../database/faults'
import type { DeviceHardware } from './hardware'
import type { HardwareCache } from './hardware.cache'
import { type Fate, type PendingDeadLetter, PendingRows } from './ingest.batch'
import { DataRejected, type IngestStore } from './ingest.store'
import { type Check, checkMessage, isAboutHardware } from './report.check'

const MAX_MESSAGES = 5_000

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
  ) {}

  /** @throws DomainError invalid when the batch breaks a limit of the contract, unavailable when the store is away */
  async ingest(request: IngestRequest): Promise<IngestResponse> {
    if (!UUID.test(request.batchId)) throw invalid('batch_id must be a UUID')
    if (request.messages.length === 0) throw invalid('a batch has at least one message')
    if (request.messages.length > MAX_MESSAGES) throw invalid(`a batch has at most ${MAX_MESSAGES} messages`)
    const { checked, devices } = await this.check(request.messages)
    try {
      await this.commit(request.batchId, checked)
    } catch (error) {
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
    return answer(checked, devices)
  }

  private async check(messages: readonly Message[]): Promise<{ checked: CheckedMessage[]; devices: Devices }> {
    const now = this.now()
    const devices = await this.hardware.find(new Set(messages.map((message) => message.deviceId)))
    const checked = messages.map((message, index): CheckedMessage => {
      const receivedAt = message.receivedAt?.getTime() ?? now
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
  private async commit(batchId: string, checked: readonly CheckedMessage[]): Promise<void> {
    const rows = new PendingRows()
    const deadLetters: PendingDeadLetter[] = []
    const dead = new Set<number>()
    checked.forEach((entry, position) => {
      if (entry.check.kind === 'accepted') {
        for (const sample of entry.check.samples) rows.add(position, sample)
      } else {
        dead.add(position)
        deadLetters.push(deadLetter(entry, entry.check.reason, entry.check.detail))
      }
    })
    const messages = checked.map(({ message, receivedAt }) => ({
      deviceId: bounded(storable(message.deviceId), MAX_ID),
      receivedAt,
    }))
    try {
      const fates = await this.store.commit({ batchId, rows, deadLetters, messages, dead })
      fates.forEach((fate, position) => {
        const entry = checked[position]
        if (entry) entry.fate = fate
      })
    } catch (error) {
      if (!(error instanceof DataRejected)) throw error
      await this.commitInParts(batchId, checked, error)
    }
  }

  private async commitInParts(batchId: string, checked: readonly CheckedMessage[], error: DataRejected): Promise<void> {
    const [only] = checked
    if (checked.length > 1) {
      const middle = checked.length >> 1
      await this.commit(batchId, checked.slice(0, middle))
      await this.commit(batchId, checked.slice(middle))
    } else if (only?.check.kind === 'accepted') {
      only.check = { kind: 'refused', reason: 'rejected_by_store', detail: error.message }
      await this.commit(batchId, checked)
    } else {
      throw error // a dead letter that cannot be stored: ours to mend, see `deadLetter`
    }
  }

  private noteSeen(checked: readonly CheckedMessage[], devices: Devices): void {
    for (const { message, receivedAt } of checked) {
      if (devices.get(message.deviceId)) this.lastSeen.note(message.deviceId, receivedAt)
    }
  }
}

type Devices = Map<string, DeviceHardware | undefined>

interface CheckedMessage {
  /** Position in the request. */
  readonly index: number
  readonly message: Message
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
function deadLetter(entry: CheckedMessage, reason: string, detail: string): PendingDeadLetter {
  const { deviceId, topic, payload } = entry.message
  return {
    index: entry.index,
    deviceId: bounded(storable(deviceId), MAX_ID),
    topic: bounded(storable(topic || topics.telemetry(deviceId)), 512),
    payload,
    reason: bounded(storable(reason), 64),
    detail: bounded(storable(detail), 256),
    receivedAt: entry.receivedAt,
  }
}

/** Ids of devices are shorter; what a topic may hold instead must still fit into an index. */
const MAX_ID = 128

/** PostgreSQL's text takes every character but NUL. */
const storable = (text: string): string => (text.includes('\u0000') ? text.replaceAll('\u0000', '\uFFFD') : text)

const bounded = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`

const invalid = (message: string): DomainError => new DomainError('invalid', 'invalid_batch', message)

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
