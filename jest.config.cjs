// ESM-only packages that code or tests import: Jest on Node 20 cannot require() them, so swc turns them into CommonJS.
const esm = ['aedes', 'aedes-packet', 'aedes-persistence', 'mqemitter', 'qlobber', 'jose', 'hyperid']
const swc = (syntax) => [
  '@swc/jest',
  {
    jsc: { parser: { syntax, decorators: true }, target: 'es2022' },
    module: { type: 'commonjs' },
    sourceMaps: 'inline',
  },
]
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/proto', '<rootDir>/services', '<rootDir>/infra', '<rootDir>/vault', '<rootDir>/emqx'],
  testMatch: ['**/*.test.ts'],
  modulePathIgnorePatterns: ['/dist/'],
  globalSetup: '<rootDir>/infra/embedded/src/testing/global-setup.ts',
  globalTeardown: '<rootDir>/infra/embedded/src/testing/global-teardown.ts',
  testEnvironmentOptions: { customExportConditions: ['source', 'node', 'require', 'default'] },
  transform: { '^.+\\.ts$': swc('typescript'), '^.+\\.js$': swc('ecmascript') },
  transformIgnorePatterns: [
    `/node_modules/(?!(?:\\.pnpm/(?:${esm.join('|')})@|(?:.*/node_modules/)?(?:${esm.join('|')})/))`,
  ],
  testTimeout: 30_000,
  maxWorkers: 2,
  reporters: ['default', '<rootDir>/scripts/jest-count.cjs'],
}
