import { createLogger, onShutdownSignal, runMain } from '@ares/chassis'
import { startEmbeddedBroker } from './embedded-broker'

/** Runs in the foreground like `emqx foreground`: the file in `$EMQX_CONF`, `EMQX_…` variables over it. */
runMain('embedded-broker', async () => {
  const confFile = process.env.EMQX_CONF
  if (!confFile) throw new Error('EMQX_CONF is not set. Set it to the path of emqx.conf, for example emqx/emqx.conf.')
  const logger = createLogger({ service: 'embedded-broker', level: process.env.ARES_LOG_LEVEL })
  const broker = await startEmbeddedBroker({ confFile, env: process.env, logger })
  logger.info('ready', { ports: broker.ports })
  await onShutdownSignal()
  await broker.stop()
})
