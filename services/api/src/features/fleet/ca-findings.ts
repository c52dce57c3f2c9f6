import { X509Certificate } from 'node:crypto'
import { labelOf, splitPem } from '@ares/chassis'
import type { Finding, FindingSource } from './findings'

/** CAs that end: with them ends everything they have signed. For the whole house. */
export class CaFindings implements FindingSource {
  readonly name = 'ca'

  /** @param caPem all CAs that are trusted here */
  constructor(
    private readonly caPem: () => string,
    private readonly now: () => number = Date.now,
  ) {}

  async find(): Promise<Finding[]> {
    return splitPem(this.caPem()).flatMap((pem) => this.about(new X509Certificate(pem)))
  }

  private about(ca: X509Certificate): Finding[] {
    const ends = new Date(ca.validTo)
    const leftDays = (ends.getTime() - this.now()) / DAY_MS
    if (leftDays > WARN_DAYS) return []
    return [
      {
        code: leftDays > 0 ? 'ca_ends_soon' : 'ca_ended',
        severity: leftDays > CRITICAL_DAYS ? 'warning' : 'critical',
        organizationId: null,
        subject: { kind: 'ca', id: ca.fingerprint256.replaceAll(':', '').toLowerCase(), name: labelOf(ca) },
        cause: `It ends at ${ends.toISOString()}. Vault signs nothing that would outlive it, and whatever it signed ends with it.`,
        remedy:
          'Rotate the intermediate CA, see docs/operations.md. A root takes longer: every device has to get the new one first.',
      },
    ]
  }
}

const DAY_MS = 24 * 3_600_000
/** Devices' certificates live for a month, and a device may be away for longer. */
const WARN_DAYS = 180
const CRITICAL_DAYS = 45
