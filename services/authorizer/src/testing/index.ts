/** What benchmarks of other packages take from here. */
export * from './open-replica'
export * from './start-webhooks'
export * from './test-api'
export * from './test-directory'
