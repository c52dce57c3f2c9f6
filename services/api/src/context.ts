import { createLogger, createMetrics, Health, type Logger } from '@ares/chassis'
import type { Registry } from 'prom-client'
import type { ApiConfig } from './config'
import { type Database, openDatabase } from './database'
import { Notifications } from './database/notifications'

/** What the rooms share, built once. */
export interface ApiContext {
  readonly config: ApiConfig
  readonly logger: Logger
  readonly metrics: Registry
  readonly health: Health
  readonly database: Database
  readonly notifications: Notifications
  /** Aborted when the service stops. */
  readonly stopping: AbortController
}

/** Connects to nothing yet. */
export function createContext(config: ApiConfig, logger?: Logger): ApiContext {
  const log = logger ?? createLogger({ service: 'api', level: config.logLevel })
  const database = openDatabase({
    connectionString: config.databaseUrl,
    onIdleError: (error) => log.warn('a connection to PostgreSQL broke', { error: error.message }),
  })
  const health = new Health()
  health.check('database', async () => {
    await database.ping()
    return true
  })
  return {
    config,
    logger: log,
    metrics: createMetrics('api'),
    health,
    database,
    notifications: new Notifications({ connectionString: config.databaseUrl, logger: log }),
    stopping: new AbortController(),
  }
}
