import { onShutdownSignal, runMain } from '@ares/chassis'
import { readConfig } from './config'
import { AuthorizerService } from './service'

runMain('authorizer', async () => {
  const service = await AuthorizerService.create(readConfig(process.env))
  await service.start()
  await onShutdownSignal()
  await service.stop()
})
