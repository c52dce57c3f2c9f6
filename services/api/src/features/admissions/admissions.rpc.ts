import { unaryHandler } from '@ares/chassis'
import type { AdmissionServiceServer } from '@ares/proto/directory/v1/admission'
import type { AdmissionService } from './admissions.service'

/** AdmissionService over gRPC, for the authorizers. */
export const admissionsRpc = (service: Pick<AdmissionService, 'record'>): AdmissionServiceServer => ({
  recordAdmissions: unaryHandler(async (request) => ({ stored: await service.record(request) })),
})
