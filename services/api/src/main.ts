import { onShutdownSignal, runMain } from '@ares/chassis'
import { readConfig } from './config'
import { ApiService } from './service'

runMain('api', async () => {
  const service = await ApiService.create(readConfig(process.env))
  await service.start()
  await onShutdownSignal()
  await service.stop()
})
