import { join } from 'node:path'
import { defineConfig } from 'prisma/config'

// The CLI asks for a native schema engine that it would download. prisma/schema-engine.mjs is the same engine, compiled
// to WebAssembly and installed from npm with everything else. PRISMA_NATIVE_ENGINE=1 returns to the native one.
if (!process.env.PRISMA_NATIVE_ENGINE) {
  process.env.PRISMA_SCHEMA_ENGINE_BINARY ??= join(__dirname, 'prisma/schema-engine.mjs')
  process.env.CHECKPOINT_DISABLE ??= '1'
}

export default defineConfig({
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  datasource: { url: process.env.DATABASE_URL ?? 'postgresql://ares:ares@127.0.0.1:5432/ares' },
})
