import { onShutdownSignal, runMain } from '@ares/chassis'
import { readConfig } from './config'
import { ListenerService } from './service'

runMain('listener', async () => {
  const service = await ListenerService.create(readConfig(process.env))
  await service.start()
  try {
    await Promise.race([onShutdownSignal(), service.failed])
  } finally {
    await service.stop()
  }
})
