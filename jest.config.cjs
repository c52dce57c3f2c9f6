const { existsSync } = require('node:fs')
const { delimiter, join } = require('node:path')

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

// MQTT 5 and real shared subscriptions are tested against mosquitto. CI installs it and must not go without.
const hasMosquitto = ['/usr/sbin', '/usr/local/sbin', ...(process.env.PATH ?? '').split(delimiter)].some((folder) =>
  existsSync(join(folder, 'mosquitto')),
)
const withoutMosquitto = !hasMosquitto && !process.env.CI
if (withoutMosquitto)
  console.warn('\nmosquitto is not installed: *.mosquitto.test.ts are LEFT OUT (apt-get install mosquitto)\n')

module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/proto', '<rootDir>/services', '<rootDir>/infra', '<rootDir>/vault', '<rootDir>/emqx'],
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: withoutMosquitto ? ['/node_modules/', '\\.mosquitto\\.test\\.ts$'] : ['/node_modules/'],
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
