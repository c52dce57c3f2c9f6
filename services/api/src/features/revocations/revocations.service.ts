import { DomainError, type Logger, requestId } from '@ares/chassis'
import { z } from 'zod'
import type { BrokerSessions } from '../../broker/broker-sessions'
import type { Device, Revocation, RevocationKind } from '../../generated/prisma/client'
import { decodeCursor, type Page, pageFrom } from '../../http/shapes'
import { newId } from '../../ids'
import type { Actor, AuditService } from '../audit/audit.service'
import type { Pki } from '../certificates/pki'
import { recordDirectoryChange } from '../directory/directory.changes'
import type { RevocationMetrics } from './revocation-metrics'
import { ANSWERED_STEPS, type DirectoryReach, doneAt, isEffective, STEPS, type Step } from './revocations'
import type { RevocationStore } from './revocations.store'

export interface RevocationParts {
  readonly store: RevocationStore
  readonly pki: Pick<Pki, 'revoke'>
  readonly directory: DirectoryReach
  readonly broker: BrokerSessions
  readonly audit: AuditService
  readonly metrics: RevocationMetrics
  readonly logger: Logger
  /** How long one run waits for the authorizers; default 1 s. */
  readonly authorizersWithinMs?: number
  /** Between the kick and the second one; default 1 s. */
  readonly secondKickAfterMs?: number
  /** How long a plan is left to the process that has it; longer than any step may take. Default 5 s. */
  readonly leaseMs?: number
  /** Told after each step, for tests that end the process there. */
  readonly afterStep?: (step: Step | 'plan') => void
}

const LONGEST_WAIT_MS = 60_000

/** What cuts a device off: revoking a certificate, disabling or deleting the device. See revocations.ts for the order. */
export class RevocationService {
  private readonly leaseMs: number

  constructor(private readonly parts: RevocationParts) {
    this.leaseMs = parts.leaseMs ?? 5_000
  }

  /**
   * Revokes one certificate. One that is revoked already, or just being revoked, is answered with what became of that.
   * @throws DomainError `certificate_not_found`, `database_unavailable` (then nothing is written down, and nothing done)
   */
  async revokeCertificate(actor: Actor, deviceId: string, serial: string, reason?: string): Promise<Revocation> {
    const plan = await this.plan(actor, deviceId, 'certificate', reason, (device) => {
      if (device.certificates.some((certificate) => certificate.serial === serial)) return [serial]
      throw new DomainError(
        'not_found',
        'certificate_not_found',
        'The device has no certificate of this serial number.',
      )
    })
    return this.begin(plan)
  }

  /**
   * Switches a device off.
   * @param keepCertificates they are not revoked, so that the device comes back with them when it is enabled again
   * @throws DomainError `device_not_found`, `database_unavailable`
   */
  async disable(
    actor: Actor,
    deviceId: string,
    { reason, keepCertificates = false }: { readonly reason?: string; readonly keepCertificates?: boolean },
  ): Promise<Revocation> {
    const plan = await this.plan(actor, deviceId, 'disable', reason, (device) =>
      keepCertificates ? [] : usableSerials(device),
    )
    return this.begin(plan)
  }

  /** Revokes a device's certificates and removes it. Its telemetry ends with its retention.
   *  @throws DomainError `device_not_found`, `database_unavailable` */
  async delete(actor: Actor, deviceId: string, reason?: string): Promise<Revocation> {
    return this.begin(await this.plan(actor, deviceId, 'delete', reason, usableSerials))
  }

  /** @throws DomainError `revocation_not_found` */
  async get(organizationId: string, id: string): Promise<Revocation> {
    const plan = await this.parts.store.find({ id, organizationId })
    if (plan) return plan
    throw new DomainError('not_found', 'revocation_not_found', 'The organization has no such revocation.')
  }

  /** Newest first. */
  async list(
    organizationId: string,
    query: { readonly limit: number; readonly cursor?: string; readonly unfinished: boolean },
  ): Promise<Page<Revocation>> {
    const before = decodeCursor(query.cursor, z.uuid())
    const { limit, unfinished } = query
    const rows = await this.parts.store.list(organizationId, { limit: limit + 1, before, unfinished })
    return pageFrom(rows, limit, (row) => row.id)
  }

  /** Goes on with plans whose time has come, those that another process left included. @returns how many */
  async continueDue(limit: number): Promise<number> {
    const ids = await this.parts.store.claimDue(limit, this.leaseMs)
    await Promise.all(
      ids.map(async (id) => {
        const plan = await this.parts.store.find({ id })
        if (plan) await this.run(plan)
      }),
    )
    return ids.length
  }

  private async begin(plan: Revocation): Promise<Revocation> {
    this.parts.afterStep?.('plan')
    return isEffective(plan) ? plan : this.run(plan)
  }

  /**
   * Does what is not done, in order. Never throws: what failed stands in the plan that is returned, and in the database
   * as far as that can be reached; the worker tries again.
   */
  private async run(plan: Revocation): Promise<Revocation> {
    let now = plan
    // The second kick is for a later run: the plan is left alone in between.
    const steps = plan.kickAt ? STEPS : ANSWERED_STEPS
    let failure: { step: Step; error: unknown } | undefined
    for (const step of steps) {
      if (doneAt(now, step) || !isPossible(now, step)) continue
      try {
        now = await this.perform(now, step)
        this.parts.afterStep?.(step)
      } catch (error) {
        this.tell(now, step, error)
        failure ??= { step, error }
        if (step === 'database') break
      }
    }
    return this.letGo(now, failure)
  }

  private perform(plan: Revocation, step: Step): Promise<Revocation> {
    switch (step) {
      case 'vault':
        return this.revokeInVault(plan)
      case 'database':
        return this.change(plan)
      case 'authorizers':
        return this.waitForAuthorizers(plan)
      case 'kick':
        return this.kick(plan)
      case 'audit':
        return this.writeAudit(plan)
      case 'secondKick':
        return this.kickAgain(plan)
    }
  }

  private async revokeInVault(plan: Revocation): Promise<Revocation> {
    for (const serial of plan.serials) await this.parts.pki.revoke(serial)
    return this.parts.store.done(plan.id, 'vault', this.leaseMs)
  }

  private change({ id }: Revocation): Promise<Revocation> {
    const { store } = this.parts
    return store.transaction(async (tx) => {
      const plan = await store.lock(tx, id)
      if (plan.databaseAt) return plan
      const { deviceId, serials, kind, reason } = plan
      await store.revoke(tx, deviceId, serials, reason ?? REASON[kind])
      if (kind === 'disable') await store.disable(tx, deviceId)
      if (kind === 'delete') {
        await store.remove(tx, deviceId)
        const directoryVersion = await recordDirectoryChange(tx, { kind: 'removed_device', id: deviceId })
        return store.done(id, 'database', this.leaseMs, { tx, directoryVersion })
      }
      for (const serial of serials) await recordDirectoryChange(tx, { kind: 'revoked_certificate', id: serial })
      const directoryVersion = await recordDirectoryChange(tx, { kind: 'device', id: deviceId })
      return store.done(id, 'database', this.leaseMs, { tx, directoryVersion })
    })
  }

  private async waitForAuthorizers({ id, directoryVersion }: Revocation): Promise<Revocation> {
    const { directory, store, authorizersWithinMs = 1_000 } = this.parts
    if (directoryVersion === null || !(await directory.reached(directoryVersion, authorizersWithinMs))) {
      throw new DomainError(
        'unavailable',
        'authorizers_unavailable',
        'Not every authorizer has said that it knows of it, or none is connected.',
      )
    }
    return store.done(id, 'authorizers', this.leaseMs)
  }

  private async kick(plan: Revocation): Promise<Revocation> {
    await this.parts.broker.kick(plan.deviceId)
    // Without the authorizers' word the client may be back in: then this was not the last time.
    if (!plan.authorizersAt) return plan
    const kicked = await this.parts.store.done(plan.id, 'kick', this.leaseMs)
    this.parts.metrics.tookEffect(millisecondsOf(kicked))
    return kicked
  }

  private writeAudit({ id }: Revocation): Promise<Revocation> {
    const { store, audit } = this.parts
    return store.transaction(async (tx) => {
      const plan = await store.lock(tx, id)
      if (plan.auditAt) return plan
      const { deviceId, organizationId, kind, reason, serials } = plan
      const { requestId, ...actor } = requester.parse(plan.requestedBy)
      await audit.record(tx, {
        actor,
        action: ACTION[kind],
        subject: { kind: 'device', id: deviceId },
        organizationId,
        detail: {
          revocationId: id,
          serials: serials.join(' '),
          reason,
          requestId: requestId ?? null,
          milliseconds: millisecondsOf(plan),
        },
      })
      return store.done(id, 'audit', this.leaseMs, { tx })
    })
  }

  private async kickAgain(plan: Revocation): Promise<Revocation> {
    await this.parts.broker.kick(plan.deviceId)
    return this.parts.store.done(plan.id, 'secondKick', this.leaseMs)
  }

  /** Says when the plan goes on, or that it is finished. */
  private async letGo(
    plan: Revocation,
    failure: { readonly step: Step; readonly error: unknown } | undefined,
  ): Promise<Revocation> {
    const { store, logger, secondKickAfterMs = 1_000 } = this.parts
    const told = failure && { step: failure.step, error: messageOf(failure.error) }
    try {
      if (STEPS.every((step) => doneAt(plan, step))) return await store.finish(plan.id)
      const waitMs = told ? backoffMs(plan.failures) : secondKickAfterMs
      // The second kick is due soon, whatever else failed.
      const dueMs = plan.kickAt && !plan.secondKickAt ? Math.min(waitMs, secondKickAfterMs) : waitMs
      return await store.rest(plan.id, dueMs, told)
    } catch (error) {
      logger.warn('a revocation is put off until the database is back', { id: plan.id, error: messageOf(error) })
      return { ...plan, failedStep: told?.step ?? null, lastError: told?.error ?? null }
    }
  }

  private tell({ id, deviceId, kind }: Revocation, step: Step, error: unknown): void {
    this.parts.metrics.failed(step)
    this.parts.logger.warn('a step of a revocation failed and will be tried again', {
      id,
      deviceId,
      kind,
      step,
      error: messageOf(error),
    })
  }

  /** Writes the plan; one that is not finished, or that has revoked this certificate, is gone on with instead. */
  private async plan(
    actor: Actor,
    deviceId: string,
    kind: RevocationKind,
    reason: string | undefined,
    serialsOf: (device: DeviceWithCertificates) => string[],
  ): Promise<Revocation> {
    const { store, audit } = this.parts
    return store.transaction(async (tx) => {
      const device = await store.lockDevice(tx, deviceId)
      if (!device) throw new DomainError('not_found', 'device_not_found', 'There is no such device.')
      const serials = serialsOf(device)
      const earlier = await store.latest(tx, deviceId, kind, kind === 'certificate' ? serials[0] : undefined)
      if (earlier && covers(earlier, serials) && stillSpeaks(earlier, device)) return earlier
      const { organizationId } = device
      const requestedBy = requester.parse({ ...actor, requestId: requestId() })
      const plan = await store.add(
        tx,
        { id: newId(), organizationId, deviceId, kind, serials, reason, requestedBy },
        this.leaseMs,
      )
      await audit.record(tx, {
        actor,
        action: `${ACTION[kind]}.requested`,
        subject: { kind: 'device', id: deviceId },
        organizationId,
        detail: { revocationId: plan.id, serials: serials.join(' '), reason: reason ?? null },
      })
      return plan
    })
  }
}

/** Whether the steps before have gone so far that this one makes sense. */
function isPossible(plan: Revocation, step: Step): boolean {
  switch (step) {
    case 'vault':
    case 'database':
      return true
    case 'authorizers':
    case 'kick':
      return plan.databaseAt !== null
    case 'audit':
      return plan.vaultAt !== null && plan.authorizersAt !== null && plan.kickAt !== null
    case 'secondKick':
      return plan.kickAt !== null
  }
}

/** Whether an earlier plan still is what is asked for; a device may have been enabled since. */
function stillSpeaks(plan: Revocation, device: DeviceWithCertificates): boolean {
  if (plan.kind === 'certificate') return true
  if (plan.finishedAt) return false
  return plan.databaseAt === null || device.state === 'disabled'
}

type DeviceWithCertificates = Pick<Device, 'id' | 'organizationId' | 'state'> & {
  readonly certificates: ReadonlyArray<{ readonly serial: string; readonly state: string; readonly notAfter: Date }>
}

/** What could still be used: also what is retired, because only its state keeps it out. */
const usableSerials = ({ certificates }: DeviceWithCertificates): string[] =>
  certificates.filter(({ state, notAfter }) => state !== 'revoked' && notAfter > new Date()).map(({ serial }) => serial)

const covers = (plan: Revocation, serials: readonly string[]): boolean =>
  serials.every((serial) => plan.serials.includes(serial))

/** Who asked, as it is kept. */
const asked = { requestId: z.string().optional() }
const named = { ...asked, id: z.string(), address: z.string().optional() }
const requester = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('user'), ...named }),
  z.object({ kind: z.literal('device'), ...named }),
  z.object({ kind: z.literal('service'), ...named }),
  z.object({ kind: z.literal('system'), ...asked }),
])

/** From the plan to the kick, by the database's clock. */
const millisecondsOf = ({ createdAt, kickAt }: Revocation): number =>
  kickAt ? kickAt.getTime() - createdAt.getTime() : Number.NaN

/** What happened, in the audit. */
const ACTION = { certificate: 'certificate.revoked', disable: 'device.disabled', delete: 'device.deleted' } as const
/** Why, when nobody said it. */
const REASON = { certificate: null, disable: 'the device was disabled', delete: 'the device was deleted' } as const

const backoffMs = (failures: number): number => Math.min(LONGEST_WAIT_MS, 1_000 * 2 ** Math.min(failures, 6))

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).slice(0, 500)
