import { DomainError, type Logger } from '@ares/chassis'
import { TOPIC_ROOT } from '@ares/proto'
import {
  type Admission,
  AdmissionAction,
  AdmissionResult,
  type RecordAdmissionsRequest,
} from '@ares/proto/directory/v1/admission'
import { z } from 'zod'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { Recurring } from '../../recurring'
import type { AdmissionQuery } from './admissions.schema'
import type { AdmissionStore, FirstConnection, NewAdmission, StoredAdmission } from './admissions.store'

const MOST_ADMISSIONS = 1_000
const KEPT_DAYS = 30
const DAY_MS = 86_400_000

/** Who came to the broker's door, and what they were told. */
export class AdmissionService {
  private readonly pruning = new Recurring(
    () => this.prune(),
    (error) =>
      this.options.logger.warn('old decisions of admission were not deleted, trying again within the hour', {
        error: String(error),
      }),
  )

  constructor(
    private readonly store: Pick<AdmissionStore, 'record' | 'list' | 'prune'>,
    private readonly options: {
      readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>
      /** Told of certificates that were connected with for the first time, after the commit. A process that ends in
       *  between does not tell: `certificates.first_seen_at` has it too. */
      readonly onFirstConnections?: (first: readonly FirstConnection[]) => Promise<void> | void
      /** Default 30 days. */
      readonly keptDays?: number
      readonly now?: () => number
    },
  ) {}

  /** Forgets what is past its time, now and every hour. */
  start(everyMs = 3_600_000): void {
    this.pruning.start(everyMs)
    void this.pruning.run()
  }

  stop(): Promise<void> {
    return this.pruning.stop()
  }

  /**
   * Stores a batch of an authorizer.
   * @returns rows that were not stored before
   * @throws DomainError invalid_admissions
   */
  async record({ batchId, admissions }: RecordAdmissionsRequest): Promise<number> {
    if (admissions.length === 0 || admissions.length > MOST_ADMISSIONS) {
      throw invalid(`1 to ${MOST_ADMISSIONS} decisions are taken at once.`)
    }
    if (!UUID.test(batchId)) throw invalid('A batch needs a UUID as its id.')
    const { stored, first } = await this.store.record(batchId, admissions.map(rowOf))
    if (first.length > 0) await this.tell(first)
    return stored
  }

  /** The newest first. @throws DomainError invalid_cursor */
  async list(
    of: { readonly deviceId: string } | { readonly organizationId: string },
    query: AdmissionQuery,
  ): Promise<Page<StoredAdmission>> {
    const before = decodeCursor(query.cursor, z.string().regex(/^\d{1,18}$/))
    const filter = { ...query, allowed: query.result === undefined ? undefined : query.result === 'allow' }
    return pageFrom(await this.store.list(of, filter, query.limit + 1, before), query.limit, ({ id }) => id)
  }

  private async tell(first: readonly FirstConnection[]): Promise<void> {
    try {
      await this.options.onFirstConnections?.(first)
    } catch (error) {
      // The rows are committed: the authorizer must not send them again.
      this.options.logger.error('certificates that are used for the first time were not followed up', { error, first })
    }
  }

  private async prune(): Promise<void> {
    const { logger, keptDays = KEPT_DAYS, now = Date.now } = this.options
    const rows = await this.store.prune(new Date(now() - keptDays * DAY_MS))
    if (rows > 0) logger.info('deleted decisions of admission past their time', { rows })
  }
}

function rowOf(admission: Admission): NewAdmission {
  const { at, count, action, result, className, subjectId, topic } = admission
  const named = ACTIONS[action]
  if (!at || !named || count === 0 || count > MOST_COUNT) throw invalid('A decision needs at, count and action.')
  if (result !== AdmissionResult.ADMISSION_RESULT_ALLOW && result !== AdmissionResult.ADMISSION_RESULT_DENY) {
    throw invalid('A decision needs a result.')
  }
  return {
    at,
    count,
    action: named,
    allowed: result === AdmissionResult.ADMISSION_RESULT_ALLOW,
    reason: admission.reason,
    rule: textOf(admission.rule),
    className: textOf(className),
    subjectId: textOf(subjectId),
    clientId: textOf(admission.clientId),
    certificateSerial: serialOf(admission.certificateSerial),
    peerAddress: textOf(admission.peerAddress),
    zone: textOf(admission.zone),
    topic: textOf(topic),
    deviceId: deviceOf(className === 'device' ? subjectId : topic),
  }
}

const ACTIONS: Readonly<Partial<Record<AdmissionAction, NewAdmission['action']>>> = {
  [AdmissionAction.ADMISSION_ACTION_CONNECT]: 'connect',
  [AdmissionAction.ADMISSION_ACTION_PUBLISH]: 'publish',
  [AdmissionAction.ADMISSION_ACTION_SUBSCRIBE]: 'subscribe',
}

const MOST_COUNT = 2 ** 31 - 1
const LONGEST_TEXT = 256
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** PostgreSQL's text holds no NUL, and a client may send one. */
const textOf = (text: string): string | null => text.replaceAll('\0', '\uFFFD').slice(0, LONGEST_TEXT) || null

/** 9f3a -> `9f:3a`, as Vault writes it. */
const serialOf = (serial: Uint8Array): string | null =>
  Buffer.from(serial).toString('hex').match(/../g)?.join(':') ?? null

/** @param text id of a device, or a topic that speaks of one */
function deviceOf(text: string): string | null {
  const [root = '', id = ''] = text.split('/')
  return UUID.test(root) ? root : root === TOPIC_ROOT && UUID.test(id) ? id : null
}

const invalid = (detail: string) => new DomainError('invalid', 'invalid_admissions', detail)
