import { Metadata, type ServiceError, status } from '@grpc/grpc-js'
import { DomainError, type ErrorKind } from '../errors'

/** Trailing metadata that carries the `code` of a DomainError to the caller. */
const ERROR_CODE_KEY = 'ares-error-code'

const STATUS_OF_KIND: Readonly<Record<ErrorKind, status>> = {
  not_found: status.NOT_FOUND,
  conflict: status.ALREADY_EXISTS,
  invalid: status.INVALID_ARGUMENT,
  forbidden: status.PERMISSION_DENIED,
  unauthenticated: status.UNAUTHENTICATED,
  unavailable: status.UNAVAILABLE,
  too_many: status.RESOURCE_EXHAUSTED,
  precondition: status.FAILED_PRECONDITION,
}

export interface StatusError {
  readonly code: status
  readonly details: string
  readonly metadata?: Metadata
}

/** What a caller may see of an error: a DomainError in full, of anything else only that it happened. */
export function statusOf(error: unknown): StatusError {
  if (error instanceof DomainError) {
    const metadata = new Metadata()
    metadata.set(ERROR_CODE_KEY, error.code)
    return { code: STATUS_OF_KIND[error.kind], details: error.message, metadata }
  }
  return { code: status.INTERNAL, details: 'internal error' }
}

/** The `code` of the DomainError that the other side threw, when it was one. */
export function domainCodeOf(error: unknown): string | undefined {
  const value = (error as Partial<ServiceError>).metadata?.get(ERROR_CODE_KEY)[0]
  return typeof value === 'string' ? value : undefined
}
