export * from './identity'
export * from './topics'
