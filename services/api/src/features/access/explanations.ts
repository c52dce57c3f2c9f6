import { createGrpcClient, DomainError, type LeafSource, unary } from '@ares/chassis'
import { AccessServiceClient, type ExplainRequest, type ExplainResponse } from '@ares/proto/directory/v1/access'
import { status } from '@grpc/grpc-js'

/** Where the knowledge is: an authorizer answers from its replica, by the code that answers the broker. */
export interface Explanations {
  /** @throws DomainError authorizer_unavailable, no_directory */
  explain(request: ExplainRequest): Promise<ExplainResponse>
}

/** Asks one authorizer after the other over gRPC, until one answers. @param addresses host:port */
export class AuthorizerExplanations implements Explanations {
  private readonly clients: readonly AccessServiceClient[]

  constructor(
    addresses: readonly string[],
    identity: LeafSource,
    private readonly deadlineMs = 2_000,
  ) {
    this.clients = addresses.map((address) =>
      createGrpcClient({
        client: AccessServiceClient,
        address,
        identity,
        serverName: 'authorizer.service.ares4.internal',
      }),
    )
  }

  async explain(request: ExplainRequest): Promise<ExplainResponse> {
    let unready = false
    for (const client of this.clients) {
      try {
        return await unary<ExplainRequest, ExplainResponse>(client, client.explain, request, {
          deadlineMs: this.deadlineMs,
        })
      } catch (error) {
        const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
        if (code === status.FAILED_PRECONDITION) unready = true
        else if (code !== status.UNAVAILABLE && code !== status.DEADLINE_EXCEEDED) throw error
      }
    }
    throw unready
      ? new DomainError('unavailable', 'no_directory', 'The authorizer has no directory yet: it refuses everybody.')
      : new DomainError('unavailable', 'authorizer_unavailable', 'No authorizer answered. Try again in a moment.')
  }

  close(): void {
    for (const client of this.clients) client.close()
  }
}
