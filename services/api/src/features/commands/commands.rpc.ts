import { unaryHandler } from '@ares/chassis'
import type { CommandServiceServer } from '@ares/proto/commands/v1/commands'
import type { CommandService } from './commands.service'

/** CommandService over gRPC, for the listener. */
export const commandsRpc = (service: Pick<CommandService, 'recordResponses'>): CommandServiceServer => ({
  recordResponses: unaryHandler(async ({ responses }) => ({ changed: await service.recordResponses(responses) })),
})
