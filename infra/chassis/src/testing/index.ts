export * from './test-authority'
