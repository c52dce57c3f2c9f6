/** What kind of refusal a domain error is; the API maps it to an HTTP status, the chassis to a gRPC status. */
export type ErrorKind =
  | 'not_found'
  | 'conflict'
  | 'invalid'
  | 'forbidden'
  | 'unauthenticated'
  | 'unavailable'
  | 'too_many'
  | 'precondition'

/**
 * A refusal that is part of an interface: the caller may see its code, message and details.
 * Whatever is not a DomainError is an internal error, and its details stay in the log.
 */
export class DomainError extends Error {
  /** @param code stable name in snake_case, e.g. `device_disabled`; callers may branch on it
   *  @param details plain values that help the caller, e.g. the fields that are wrong */
  constructor(
    readonly kind: ErrorKind,
    readonly code: string,
    message: string,
    readonly details: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options)
    this.name = new.target.name
  }
}
