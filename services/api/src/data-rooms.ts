import type { LeafSource } from '@ares/chassis'
import { CommandServiceService } from '@ares/proto/commands/v1/commands'
import { AdmissionServiceService } from '@ares/proto/directory/v1/admission'
import { DirectoryServiceService } from '@ares/proto/directory/v1/directory'
import type { EmqxManagement } from './broker/emqx-management'
import type { ApiContext } from './context'
import { accessRoutes } from './features/access/access.routes'
import { AccessService } from './features/access/access.service'
import { AccessStore } from './features/access/access.store'
import { AuthorizerExplanations } from './features/access/explanations'
import { admissionRoutes } from './features/admissions/admissions.routes'
import { admissionsRpc } from './features/admissions/admissions.rpc'
import { AdmissionService } from './features/admissions/admissions.service'
import { AdmissionStore } from './features/admissions/admissions.store'
import { AuditService } from './features/audit/audit.service'
import { AuditStore } from './features/audit/audit.store'
import { CommandDelivery, listenerPublishers } from './features/commands/command-delivery'
import { commandRoutes } from './features/commands/commands.routes'
import { commandsRpc } from './features/commands/commands.rpc'
import { CommandService } from './features/commands/commands.service'
import { CommandStore } from './features/commands/commands.store'
import { DirectoryFeed } from './features/directory/directory.feed'
import { createFeedMetrics, directoryRpc } from './features/directory/directory.rpc'
import { DirectoryStore } from './features/directory/directory.store'
import { AccessControl } from './http/access'
import type { Rooms } from './rooms'
import { telemetryRooms } from './telemetry-rooms'

const DIRECTORY_CHANGES_KEPT_MS = 24 * 3_600_000

/**
 * The rooms that the broker side fills and reads: telemetry, dead letters, device status, the directory, commands.
 * @param identity what commands are brought to the listeners with
 * @param broker absent: nobody governs the rate of the devices
 */
export function dataRooms(
  context: ApiContext,
  identity: LeafSource,
  broker?: Pick<EmqxManagement, 'call'>,
): Rooms & { readonly directory: DirectoryFeed } {
  const { config, notifications, logger, stopping } = context
  const { prisma, pool } = context.database
  const telemetry = telemetryRooms(context, broker)
  const directory = new DirectoryStore(pool)
  const feed = new DirectoryFeed(directory, notifications, { logger })
  const admissions = new AdmissionService(new AdmissionStore(pool), { logger })
  const explanations = new AuthorizerExplanations(config.authorizerAddresses, identity)
  const access = new AccessService(new AccessStore(pool), new AccessControl(pool), explanations)
  const listeners = listenerPublishers(config.listenerAddresses, identity)
  const delivery = new CommandDelivery(listeners.publishers)
  const commands = new CommandService(
    new CommandStore(prisma, pool),
    delivery,
    new AuditService(new AuditStore(prisma)),
    { logger },
  )
  const prune = () =>
    directory.prune(new Date(Date.now() - DIRECTORY_CHANGES_KEPT_MS)).catch((error: unknown) => {
      logger.warn('old changes of the directory were not removed, trying again within the hour', {
        error: String(error),
      })
    })
  let pruning: NodeJS.Timeout | undefined
  return {
    directory: feed,
    routes: [...telemetry.routes, ...commandRoutes(commands), ...admissionRoutes(admissions), ...accessRoutes(access)],
    rpc: [
      ...telemetry.rpc,
      { definition: CommandServiceService, implementation: commandsRpc(commands) },
      {
        definition: DirectoryServiceService,
        implementation: directoryRpc(feed, {
          logger,
          signal: stopping.signal,
          metrics: createFeedMetrics(context.metrics),
        }),
      },
      { definition: AdmissionServiceService, implementation: admissionsRpc(admissions) },
    ],
    allow: {
      ...telemetry.allow,
      [CommandServiceService.recordResponses.path]: ['listener'],
      [DirectoryServiceService.watchDirectory.path]: ['authorizer'],
      [DirectoryServiceService.confirmDirectory.path]: ['authorizer'],
      [AdmissionServiceService.recordAdmissions.path]: ['authorizer'],
    },
    async start() {
      await notifications.start()
      await telemetry.start()
      await prune()
      commands.start()
      admissions.start()
      pruning = setInterval(prune, 3_600_000).unref()
    },
    async stop() {
      clearInterval(pruning)
      await commands.stop()
      await admissions.stop()
      listeners.close()
      explanations.close()
      await telemetry.stop()
      await notifications.stop()
    },
  }
}
