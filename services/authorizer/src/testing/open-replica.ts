import { createGrpcClient, createLogger, type LeafSource } from '@ares/chassis'
import { DirectoryServiceClient } from '@ares/proto/directory/v1/directory'
import { DirectoryReplica } from '../replica/directory-replica'
import { DirectoryWatcher } from '../replica/directory-watcher'

/** A replica on a stream of its own from 127.0.0.1:port. @returns with it the causes for which streams ended */
export function openReplica(port: number, identity: LeafSource, silenceMs?: number) {
  const replica = new DirectoryReplica()
  const causes: string[] = []
  const client = createGrpcClient({
    client: DirectoryServiceClient,
    address: `127.0.0.1:${port}`,
    identity,
    serverName: 'api.service.ares4.internal',
  })
  const logger = createLogger({ service: 'test', level: 'error' })
  const watcher = new DirectoryWatcher({ client, replica, logger, silenceMs, onEnd: (cause) => causes.push(cause) })
  watcher.start()
  return {
    replica,
    causes,
    close() {
      watcher.stop()
      client.close()
    },
  }
}
