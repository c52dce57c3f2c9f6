import { unaryHandler } from '@ares/chassis'
import type { DeviceServiceServer } from '@ares/proto/devices/v1/devices'
import type { StatusService } from './status.service'

/** DeviceService.RecordStatus over gRPC, for the listener. */
export const statusRpc = (service: StatusService): Pick<DeviceServiceServer, 'recordStatus'> => ({
  recordStatus: unaryHandler(async ({ statuses }) => ({ changed: await service.record(statuses) })),
})
