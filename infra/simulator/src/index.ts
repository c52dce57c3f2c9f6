export * from './api-client'
export * from './device'
export * from './fleet'
export * from './simulator'
