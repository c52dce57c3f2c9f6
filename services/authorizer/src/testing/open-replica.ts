import { createGrpcClient, createLogger, type LeafSource } from '@ares/chassis'
import { DirectoryServiceClient } from '@ares/proto/directory/v1/directory'
import { DirectoryReplica } from '../replica/directory-replica'
import { DirectoryWatcher } from '../replica/directory-watcher'

/** A replica on a stream of its own from 127.0.0.1:port. @returns with it the causes for which streams ended, and what came
 *  of each comparison with api's checksum */
export function openReplica(
  port: number,
  identity: LeafSource,
  times: { readonly silenceMs?: number; readonly healEveryMs?: number } = {},
) {
  const replica = new DirectoryReplica()
  const causes: string[] = []
  const compared: string[] = []
  const client = createGrpcClient({
    client: DirectoryServiceClient,
    address: `127.0.0.1:${port}`,
    identity,
    serverName: 'api.service.ares4.internal',
  })
  const watcher = new DirectoryWatcher({
    client,
    replica,
    logger: createLogger({ service: 'test', level: 'silent' }),
    onEnd: (cause) => causes.push(cause),
    onCompared: (result) => compared.push(result),
    ...times,
  })
  watcher.start()
  return {
    replica,
    causes,
    compared,
    close() {
      watcher.stop()
      client.close()
    },
  }
}
