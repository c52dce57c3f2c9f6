export * from './test-authority'
export * from './until'
