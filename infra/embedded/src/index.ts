export { freePort, freePorts, isFree } from './free-port'
export { type Postgres, type PostgresOptions, startPostgres } from './postgres'
