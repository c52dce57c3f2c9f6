import type { Finding, FindingSource, Severity } from '../fleet/findings'
import type { PkiFinding, PkiFindingKind, PkiReconciler } from './pki-reconciler'

/** A comparison that is not older is not made again. */
const FRESH_MS = 60_000

/** Where Vault and database disagree, for the fleet doctor. Those without a device we know of are for the whole house. */
export class PkiFindings implements FindingSource {
  readonly name = 'vault and database'

  constructor(private readonly reconciler: Pick<PkiReconciler, 'report' | 'reconcile'>) {}

  async find(organizationIds: readonly string[]): Promise<Finding[]> {
    const last = this.reconciler.report()
    const fresh = last && Date.now() - last.at.getTime() < FRESH_MS
    const { findings } = fresh ? last : await this.reconciler.reconcile()
    return findings
      .filter(({ action }) => action !== 'revoked' && action !== 'waiting')
      .filter(({ organizationId }) => organizationId === undefined || organizationIds.includes(organizationId))
      .map(findingOf)
  }
}

const findingOf = ({ kind, serial, commonName, organizationId, cause, remedy }: PkiFinding): Finding => ({
  code: `certificate_${kind}`,
  severity: SEVERITY[kind],
  organizationId: organizationId ?? null,
  subject: { kind: 'certificate', id: serial, name: commonName ?? null },
  cause,
  remedy,
})

const SEVERITY: Readonly<Record<PkiFindingKind, Severity>> = {
  unowned: 'critical',
  unknown_name: 'critical',
  missing_in_vault: 'warning',
  revoked_in_vault_only: 'critical',
  revoked_in_database_only: 'warning',
}
