import { createGrpcClient, type LeafSource, unary } from '@ares/chassis'
import {
  CommandDeliveryServiceClient,
  type PublishRequest,
  type PublishResponse,
} from '@ares/proto/commands/v1/commands'
import { status } from '@grpc/grpc-js'

/**
 * How far a command came: `taken` by the broker for the device; `not_taken`, because the device has no session there;
 * `no_listener` that could be reached; `expired` on the way.
 */
export type Delivery = 'taken' | 'not_taken' | 'no_listener' | 'expired'

/** One listener that can publish. @throws ServiceError of grpc-js */
export type Publisher = (request: PublishRequest, signal?: AbortSignal) => Promise<PublishResponse>

/** Brings commands to the broker through one of the listeners; any of them will do. */
export class CommandDelivery {
  /** Where the next delivery begins: the one that worked last. */
  private first = 0

  constructor(private readonly publishers: readonly Publisher[]) {}

  /**
   * Tries one listener after the other. One that does not answer may have published all the same: the device then gets
   * the command twice, under one id.
   * @throws ServiceError for what another listener would say as well
   */
  async deliver(request: PublishRequest, signal?: AbortSignal): Promise<Delivery> {
    for (let attempt = 0; attempt < this.publishers.length; attempt += 1) {
      const position = (this.first + attempt) % this.publishers.length
      try {
        const answer = await this.publishers[position]?.(request, signal)
        this.first = position
        return answer?.taken ? 'taken' : 'not_taken'
      } catch (error) {
        const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
        if (code === status.FAILED_PRECONDITION) return 'expired'
        if (code !== status.UNAVAILABLE && code !== status.DEADLINE_EXCEEDED) throw error
      }
    }
    return 'no_listener'
  }
}

/** Publishers over gRPC. @param addresses host:port of the listeners */
export function listenerPublishers(
  addresses: readonly string[],
  identity: LeafSource,
  deadlineMs = 4_000,
): { readonly publishers: Publisher[]; close(): void } {
  const clients = addresses.map((address) =>
    createGrpcClient({
      client: CommandDeliveryServiceClient,
      address,
      identity,
      serverName: 'listener.service.ares4.internal',
    }),
  )
  return {
    publishers: clients.map(
      (client): Publisher =>
        (request, signal) =>
          unary<PublishRequest, PublishResponse>(client, client.publish, request, {
            deadlineMs,
            ...(signal ? { signal } : {}),
          }),
    ),
    close: () => {
      for (const client of clients) client.close()
    },
  }
}
