import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '@ares/chassis'
import { subjectOf } from '@ares/proto'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { AuditService } from '../audit/audit.service'
import type { Pki } from '../certificates/pki'
import type { KeptCertificate, PkiInventory } from './pki-inventory'
import type { KnownCertificate, PkiReconcilerStore } from './pki-reconciler.store'

export const PKI_FINDINGS = [
  /** A device's certificate that the database does not have: a sign call whose answer was lost. */
  'unowned',
  /** A name that is no device's, no service's and not the broker's. */
  'unknown_name',
  /** Good by the database, and Vault does not have it. */
  'missing_in_vault',
  /** Somebody revoked it in Vault by hand: it is still let in. */
  'revoked_in_vault_only',
  /** Revoked by the database, and not in Vault. */
  'revoked_in_database_only',
] as const
export type PkiFindingKind = (typeof PKI_FINDINGS)[number]

export interface PkiFinding {
  readonly kind: PkiFindingKind
  readonly serial: string
  readonly commonName?: string
  readonly deviceId?: string
  /** Whose it is, where that is known. */
  readonly organizationId?: string
  readonly notAfter?: Date
  /** What this run did about it: `revoked`; `waiting`: too young to be sure; `held_back`: see MOST_REVOKED_AT_ONCE. */
  readonly action: 'none' | 'revoked' | 'waiting' | 'held_back' | 'failed'
  readonly cause: string
  readonly remedy: string
}

export interface PkiReport {
  readonly at: Date
  readonly tookMs: number
  /** How many Vault keeps, and how many the database has. */
  readonly vaultCertificates: number
  readonly databaseCertificates: number
  readonly findings: readonly PkiFinding[]
}

/** Role option `not_before_duration`: certificates begin that long before they are made. */
const BACKDATED_MS = 660_000
/** So many at once are no lost answers: the database is an older copy perhaps. Then none is revoked, and a person decides. */
const MOST_REVOKED_AT_ONCE = 20
const READS_AT_ONCE = 8

/**
 * Compares what Vault has with what the database has, now and then and when it is asked to. A device's certificate that
 * nobody owns, and that is older than a grace, is revoked; services' and broker's never are: their name tells them apart.
 * Everything else is reported.
 */
export class PkiReconciler {
  private readonly seen = new Map<string, KeptCertificate>()
  private readonly ending = new AbortController()
  private looping: Promise<void> = Promise.resolve()
  private running: Promise<PkiReport> | undefined
  private last: PkiReport | undefined
  private readonly revoked: Counter

  constructor(
    private readonly parts: {
      readonly inventory: PkiInventory
      readonly store: PkiReconcilerStore
      readonly pki: Pick<Pki, 'revoke'>
      readonly audit: AuditService
      readonly metrics: Registry
      readonly logger: Logger
      /** Default 30 min: longer than any sign call, and than the clocks of Vault and api may differ. */
      readonly graceMs?: number
      /** Default 1 h. */
      readonly everyMs?: number
    },
  ) {
    const registers = [parts.metrics]
    const last = () => this.last
    new Gauge({
      name: 'ares_pki_findings',
      help: 'Where Vault and database disagreed at the last comparison.',
      labelNames: ['kind'],
      registers,
      collect() {
        const report = last()
        if (!report) return
        for (const kind of PKI_FINDINGS) {
          this.set({ kind }, report.findings.filter((finding) => finding.kind === kind).length)
        }
      },
    })
    new Gauge({
      name: 'ares_pki_reconciled_timestamp_seconds',
      help: 'When Vault and database were compared last.',
      registers,
      collect() {
        const report = last()
        if (report) this.set(report.at.getTime() / 1_000)
      },
    })
    this.revoked = new Counter({
      name: 'ares_pki_unowned_revoked_total',
      help: 'Certificates without an owner that were revoked.',
      registers,
    })
  }

  start(): void {
    this.looping = this.loop()
  }

  async stop(): Promise<void> {
    this.ending.abort()
    await this.looping
    await this.running?.catch(() => {})
  }

  /** The last comparison of this process; undefined: there was none yet. */
  report(): PkiReport | undefined {
    return this.last
  }

  /** Compares now; who comes while it is going on gets the same report. @throws DomainError `pki_unavailable` */
  reconcile(): Promise<PkiReport> {
    this.running ??= this.compare().finally(() => {
      this.running = undefined
    })
    return this.running
  }

  private async loop(): Promise<void> {
    const { everyMs = 3_600_000, logger } = this.parts
    const { signal } = this.ending
    // Several replicas that were started together do not ask at the same moment.
    for (let waitMs = Math.min(60_000, everyMs); ; waitMs = everyMs) {
      await sleep(waitMs * (0.9 + Math.random() / 5), undefined, { signal, ref: false }).catch(() => {})
      if (signal.aborted) return
      await this.reconcile().catch((error: unknown) => {
        logger.warn('Vault and database could not be compared', { error: String(error) })
      })
    }
  }

  private async compare(): Promise<PkiReport> {
    const { inventory, store } = this.parts
    const began = new Date()
    // Vault first: what is signed meanwhile is in the database only, and younger than this run.
    const [kept, revokedInVault] = [await inventory.serials(), new Set(await inventory.revokedSerials())]
    const rows = await store.certificates()
    const pending = new Set(await store.serialsBeingRevoked())
    const known = new Map(rows.map((row) => [row.serial, row]))
    const inVault = new Set(kept)

    const strays = kept.filter((serial) => !known.has(serial) && !revokedInVault.has(serial) && !pending.has(serial))
    const findings = [
      ...(await this.judgeStrays(strays, began)),
      ...(await this.judgeKnown(rows, { inVault, revokedInVault, pending, began })),
    ]
    for (const serial of this.seen.keys()) if (!inVault.has(serial)) this.seen.delete(serial)
    this.last = {
      at: began,
      tookMs: Date.now() - began.getTime(),
      vaultCertificates: kept.length,
      databaseCertificates: rows.length,
      findings,
    }
    this.tell(this.last)
    return this.last
  }

  /** What Vault has and the database does not. */
  private async judgeStrays(serials: readonly string[], now: Date): Promise<PkiFinding[]> {
    const findings: PkiFinding[] = []
    const old: PkiFinding[] = []
    for (const [serial, certificate] of await this.read(serials)) {
      if (certificate.notAfter <= now || OURS.has(kindOf(certificate.commonName))) continue
      const { commonName, notAfter } = certificate
      const subject = subjectOf(commonName)
      if (subject?.kind !== 'device') {
        findings.push({ ...UNKNOWN_NAME, serial, commonName, notAfter, action: 'none' })
        continue
      }
      const organizationId = await this.parts.store.organizationOf(subject.deviceId)
      const finding = { ...UNOWNED, serial, commonName, notAfter, deviceId: subject.deviceId, organizationId } as const
      if (this.isYoung(certificate, now)) findings.push({ ...finding, action: 'waiting' })
      else old.push({ ...finding, action: 'held_back' })
    }
    if (old.length > MOST_REVOKED_AT_ONCE) return [...findings, ...old]
    for (const finding of old) findings.push({ ...finding, action: await this.revoke(finding) })
    return findings
  }

  /** What the database has. */
  private async judgeKnown(
    rows: readonly KnownCertificate[],
    seen: {
      readonly inVault: ReadonlySet<string>
      readonly revokedInVault: ReadonlySet<string>
      readonly pending: ReadonlySet<string>
      readonly began: Date
    },
  ): Promise<PkiFinding[]> {
    const findings: PkiFinding[] = []
    for (const { serial, deviceId, organizationId, state, notAfter, createdAt } of rows) {
      if (notAfter <= seen.began || createdAt >= seen.began || seen.pending.has(serial)) continue
      const base = { serial, deviceId, organizationId, notAfter, action: 'none' } as const
      const revoked = seen.revokedInVault.has(serial)
      if (state === 'revoked' && !revoked && seen.inVault.has(serial)) {
        const finding = { ...REVOKED_IN_DATABASE_ONLY, ...base }
        findings.push({ ...finding, action: await this.revoke(finding) })
      } else if (state !== 'revoked' && revoked) findings.push({ ...REVOKED_IN_VAULT_ONLY, ...base })
      else if (state === 'active' && !seen.inVault.has(serial)) findings.push({ ...MISSING_IN_VAULT, ...base })
    }
    return findings
  }

  /** Reads certificates that were not seen before, a few at a time. */
  private async read(serials: readonly string[]): Promise<Array<[string, KeptCertificate]>> {
    const unseen = serials.filter((serial) => !this.seen.has(serial))
    let next = 0
    const worker = async () => {
      for (let serial = unseen[next++]; serial !== undefined && !this.ending.signal.aborted; serial = unseen[next++]) {
        const certificate = await this.parts.inventory.certificate(serial)
        if (certificate) this.seen.set(serial, certificate)
      }
    }
    await Promise.all(Array.from({ length: READS_AT_ONCE }, worker))
    return serials.flatMap((serial) => {
      const certificate = this.seen.get(serial)
      return certificate ? [[serial, certificate] as [string, KeptCertificate]] : []
    })
  }

  private isYoung({ notBefore }: KeptCertificate, now: Date): boolean {
    const { graceMs = 30 * 60_000 } = this.parts
    return now.getTime() - (notBefore.getTime() + BACKDATED_MS) < graceMs
  }

  private async revoke({ serial, kind, commonName, deviceId, organizationId }: Omit<PkiFinding, 'action'>) {
    const { pki, audit, logger } = this.parts
    try {
      await pki.revoke(serial)
      await audit.recordAll([
        {
          actor: { kind: 'system' },
          action: `certificate.${kind}.revoked`,
          subject: deviceId ? { kind: 'device', id: deviceId } : { kind: 'certificate', id: serial },
          organizationId,
          detail: { serial, commonName: commonName ?? null },
        },
      ])
      this.revoked.inc()
      return 'revoked'
    } catch (error) {
      logger.warn('a certificate could not be revoked', { serial, kind, error: String(error) })
      return 'failed'
    }
  }

  private tell({ findings, tookMs, vaultCertificates, databaseCertificates }: PkiReport): void {
    const open = findings.filter(({ action }) => action !== 'revoked' && action !== 'waiting')
    const counts = { vaultCertificates, databaseCertificates, tookMs, findings: findings.length, open: open.length }
    if (open.length > 0) {
      const first = open.slice(0, 5).map(({ kind, serial }) => `${kind} ${serial}`)
      this.parts.logger.warn('Vault and database disagree', { ...counts, first })
    } else this.parts.logger.info('Vault and database were compared', counts)
  }
}

/** The broker's own names, and the services': those certificates are not in the database, and never touched. */
const OURS: ReadonlySet<string> = new Set(['service', 'broker'])

const kindOf = (commonName: string): string =>
  commonName === 'broker.ares4.internal' ? 'broker' : (subjectOf(commonName)?.kind ?? 'unknown')

const UNOWNED = {
  kind: 'unowned',
  cause:
    'Vault signed it, and the answer never came to the database: a call that timed out, or a database that is an older copy.',
  remedy:
    'Nothing: it is revoked when it is old enough. If many are held back, find out why the database lacks them, then revoke each in Vault.',
} as const
const UNKNOWN_NAME = {
  kind: 'unknown_name',
  cause: 'Somebody with rights in Vault had a certificate signed that Ares does not order.',
  remedy: 'Find out who signed it (the audit of Vault); revoke it in Vault if nobody knows.',
} as const
const MISSING_IN_VAULT = {
  kind: 'missing_in_vault',
  cause: 'Vault is an older copy, or the certificate was removed there.',
  remedy:
    'Revoke the certificate in Ares and give the device a new one: without Vault it can be on no revocation list.',
} as const
const REVOKED_IN_VAULT_ONLY = {
  kind: 'revoked_in_vault_only',
  cause: 'It was revoked in Vault by hand; the authorizers do not know of it, so the device still comes in.',
  remedy: 'Revoke the certificate in Ares as well.',
} as const
const REVOKED_IN_DATABASE_ONLY = {
  kind: 'revoked_in_database_only',
  cause: 'Vault is an older copy, or its revocation was lost there. The device is kept out all the same.',
  remedy: 'Nothing: it is revoked in Vault with this comparison. When that fails each time, look at the log of api.',
} as const
