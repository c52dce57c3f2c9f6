import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'

const storage = new AsyncLocalStorage<string>()

/** Name of the gRPC metadata key and HTTP header that carries the id from service to service. */
export const REQUEST_ID_HEADER = 'x-request-id'

/** Runs `work` under a request id: every log line and every gRPC call in it carries the id. Without an id it makes one;
 *  an id that is too long or has odd characters (it came from outside) is replaced by a new one. */
export function withRequestId<T>(id: string | undefined, work: () => T): T {
  return storage.run(id !== undefined && PLAIN_ID.test(id) ? id : randomUUID(), work)
}

/** The id of the request that is being worked on, undefined outside of one. */
export function requestId(): string | undefined {
  return storage.getStore()
}

const PLAIN_ID = /^[\w.:-]{1,64}$/
