import { createServer } from 'node:net'
import { z } from 'zod'
import { readEnvironment, variable } from '../config'
import { createLogger } from '../log'
import { onShutdownSignal, runMain } from '../main'
import { credentialsFrom } from '../vault/credentials'
import { createVaultClient } from '../vault/vault-client'

/** A process with the front door of a service, for main.test.ts; SCENARIO says what befalls it. */
runMain('sample', async () => {
  const scenario = process.env.SCENARIO
  const logger = createLogger({ service: 'sample' })
  if (scenario === 'settings') readEnvironment(z.object({ ARES_A: variable.port(), ARES_B: variable.text() }), {})
  if (scenario === 'start')
    throw new Error('the port is taken', { cause: new Error('token s.AbCdEfGhIjKlMnOpQrStUvWx') })
  if (scenario === 'later') setTimeout(() => Promise.reject(new Error('something broke')), 10)
  if (scenario === 'credential') {
    const client = createVaultClient({ address: process.env.VAULT ?? '' })
    await credentialsFrom('parent', { client, service: 'listener' }).next()
    logger.info('got a credential')
  }
  if (scenario === 'slow') {
    logger.info('starting')
    await new Promise((resolve) => setTimeout(resolve, 60_000))
  }
  logger.info('ready')
  const signal = await onShutdownSignal()
  createServer().listen(0, '127.0.0.1') // a service that forgot to close something still ends
  logger.info('stopped', { signal })
})
