/**
 * The fleet doctor looks for what is wrong or soon will be, and says for each thing what it comes from and what to do.
 * A source knows one part of the house; one that cannot look now says so, and the others are heard all the same.
 */
export interface FindingSource {
  /** What it looks at, for the list of what could not be looked at. */
  readonly name: string
  /** @param organizationIds whose things are looked at. @throws when it cannot look now */
  find(organizationIds: readonly string[]): Promise<Finding[]>
}

export type Severity = 'info' | 'warning' | 'critical'

export interface Finding {
  /** Stable. */
  readonly code: string
  readonly severity: Severity
  /** Whose it is; null: it is about the whole house. */
  readonly organizationId: string | null
  /** What it is about. */
  readonly subject: {
    readonly kind: 'device' | 'certificate' | 'ca' | 'revocation'
    readonly id: string
    readonly name: string | null
  }
  /** What is seen, and what it comes from. */
  readonly cause: string
  /** What to do. */
  readonly remedy: string
}
