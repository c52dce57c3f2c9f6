#!/usr/bin/env node
// Stands in for Prisma's native `schema-engine` binary: the same JSON-RPC over stdio, served by Prisma's own engine
// compiled to WebAssembly (@prisma/schema-engine-wasm) through @prisma/adapter-pg. prisma.config.ts points the CLI here.
// The five Prisma packages must have matching versions; `npm run drift` of this package tests the combination.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { PrismaPg } from '@prisma/adapter-pg'
import { bindMigrationAwareSqlAdapterFactory, ColumnTypeEnum } from '@prisma/driver-adapter-utils'
import pg from 'pg'

const require = createRequire(import.meta.url)
const argv = process.argv.slice(2)

const option = (name) => {
  const at = argv.indexOf(name)
  return at < 0 ? undefined : argv[at + 1]
}
const datasource = option('--datasource') ? JSON.parse(option('--datasource')) : {}
const url = datasource.url || process.env.DATABASE_URL

if (argv.includes('--version')) {
  console.log('schema-engine-wasm stdio')
  process.exit(0)
}
if (argv.includes('cli')) await runCommand()

// ---- the engine ----

// The package imports its .wasm as a module, which needs a flag in Node; instantiated by hand it needs none.
const packageDirectory = dirname(require.resolve('@prisma/schema-engine-wasm/schema_engine_bg'))
const binding = await import(join(packageDirectory, 'schema_engine_bg.js'))
globalThis.PRISMA_WASM_PANIC_REGISTRY = {
  message: '',
  set_message(value) {
    this.message = value
  },
}

const cleanup = new Set()
let answering
process.on('uncaughtException', dieOfPanic)
process.on('unhandledRejection', dieOfPanic)
process.once('SIGTERM', async () => {
  await runCleanup()
  process.exit(143)
})

const { instance } = await WebAssembly.instantiate(readFileSync(join(packageDirectory, 'schema_engine_bg.wasm')), {
  './schema_engine_bg.js': binding,
})
binding.__wbg_set_wasm(instance.exports)
instance.exports.__wbindgen_start()

const models = argv.flatMap((argument, at) =>
  argument === '--datamodels' || argument === '-d' ? [[argv[at + 1], readFileSync(argv[at + 1], 'utf8')]] : [],
)
const schema = url ? (new URL(url).searchParams.get('schema') ?? undefined) : undefined

// Catalogue types that adapter-pg, written for the client, does not know: regproc, regclass and the like read as text.
const CATALOGUE_TEXT = new Set([18, 24, 194, 2205, 2206])
const CHAR_OID = 18

class Factory extends PrismaPg {
  async connect() {
    return patched(await super.connect())
  }

  async connectToShadowDb() {
    if (datasource.shadowDatabaseUrl) {
      return patched(await new PrismaPg({ connectionString: datasource.shadowDatabaseUrl }, { schema }).connect())
    }
    const name = `prisma_migrate_shadow_db_${globalThis.crypto.randomUUID()}`
    await withClient(urlOf('postgres'), (client) => client.query(`CREATE DATABASE ${quoted(name)}`))
    const drop = () =>
      withClient(urlOf('postgres'), (client) => client.query(`DROP DATABASE IF EXISTS ${quoted(name)} WITH (FORCE)`))
    cleanup.add(drop)
    const adapter = patched(await new PrismaPg({ connectionString: urlOf(name) }, { schema }).connect())
    const dispose = adapter.dispose.bind(adapter)
    adapter.dispose = async () => {
      await dispose()
      await drop()
      cleanup.delete(drop)
    }
    return adapter
  }
}

/** Mends the two things in adapter-pg that a schema engine trips over. */
function patched(adapter) {
  const performIO = adapter.performIO.bind(adapter)
  const queryRaw = adapter.queryRaw
  adapter.queryRaw = async (query) => {
    const result = await performIO(query)
    const characters = []
    result.fields.forEach((field, at) => {
      if (field.dataTypeID === CHAR_OID) characters.push(at)
      if (CATALOGUE_TEXT.has(field.dataTypeID)) field.dataTypeID = 25
    })
    const view = Object.assign(Object.create(adapter), { performIO: async () => result })
    const set = await queryRaw.call(view, query)
    // "char" must arrive as a character: as text the engine panics on CHECK and NOT NULL rows (PostgreSQL 18).
    for (const at of characters) set.columnTypes[at] = ColumnTypeEnum.Character
    return set
  }
  // adapter-pg splits a script at every semicolon, which breaks function bodies.
  adapter.executeScript = async (script) => {
    try {
      await adapter.client.query(script)
    } catch (error) {
      adapter.onError(error)
    }
  }
  if (adapter.startTransaction) {
    const start = adapter.startTransaction.bind(adapter)
    adapter.startTransaction = async (level) => patched(await start(level))
  }
  return adapter
}

let engineOnce
let factory
function engine() {
  engineOnce ??= (async () => {
    factory = bindMigrationAwareSqlAdapterFactory(new Factory({ connectionString: url, max: 1 }, { schema }))
    const options = { datamodels: models.length > 0 ? models : undefined }
    return binding.SchemaEngine.new(options, (message) => log('INFO', { message: String(message) }), factory)
  })()
  return engineOnce
}

// ---- JSON-RPC, one request after another ----

let queue = Promise.resolve()
const input = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })
input.on('line', (line) => {
  queue = queue.then(() => handle(JSON.parse(line)))
})
input.on('close', () =>
  queue.then(async () => {
    await runCleanup()
    process.exit(0)
  }),
)

async function handle({ id, method, params }) {
  if (method === undefined) return // the answer to our own `print`
  answering = id
  try {
    if (method === 'createDatabase') {
      await createDatabase()
      return send({ id, result: { databaseName: databaseName() } })
    }
    const name = method === 'getDatabaseVersion' ? 'version' : method
    const result = await (await engine())[name](params)
    if (method === 'diff' && result.stdout != null) {
      send({ id: `print-${id}`, method: 'print', params: { content: result.stdout } })
    }
    send({ id, result: result ?? {} })
  } catch (error) {
    send({ id, error: rpcError(messageOf(error), error) })
  } finally {
    answering = undefined
  }
}

/** The engine reports a driver's error as a number into a registry; the cause says what happened. */
function messageOf(error) {
  const number = /external error id (\d+)/i.exec(String(error?.message ?? ''))
  const id = typeof error?.id === 'number' ? error.id : number ? Number(number[1]) : undefined
  const cause = id === undefined ? undefined : factory?.errorRegistry?.consumeError(id)?.error
  return (cause ?? error)?.message ?? String(cause ?? error)
}

/** A panic in WebAssembly comes up as an uncaught error. Unanswered, the CLI takes the dead engine for success. */
async function dieOfPanic(error) {
  const message = globalThis.PRISMA_WASM_PANIC_REGISTRY.message || error?.stack || String(error)
  log('ERROR', { message, backtrace: error?.stack ?? '', is_panic: true })
  await runCleanup()
  if (answering !== undefined) send({ id: answering, error: rpcError(`schema-engine-wasm: ${message}`) })
  process.exitCode = 101
  setTimeout(() => process.exit(101), 50)
}

function rpcError(message, error) {
  return {
    code: 4466,
    message: 'An error happened. Check the data field for details.',
    data: { is_panic: false, message, error_code: error?.code ?? null, meta: error?.meta ?? null },
  }
}

function send(message) {
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
}

// ---- the commands that the native binary has beside the protocol ----

async function runCommand() {
  const rest = argv.slice(argv.indexOf('cli') + 1)
  const command = rest[0] === '--datasource' ? rest[2] : rest[0]
  try {
    if (command === 'can-connect-to-database') {
      await withClient(urlOf(databaseName()), (client) => client.query('SELECT 1'))
    } else if (command === 'create-database') {
      await createDatabase()
    } else if (command === 'drop-database') {
      await withClient(urlOf('postgres'), (client) =>
        client.query(`DROP DATABASE ${quoted(databaseName())} WITH (FORCE)`),
      )
    }
    process.exit(0)
  } catch (error) {
    const code = { '3D000': 'P1003', '28P01': 'P1000' }[error.code] ?? 'P1001'
    process.stderr.write('\n')
    log('ERROR', { message: error.message, error_code: code, is_panic: false })
    process.exit(1)
  }
}

function createDatabase() {
  return withClient(urlOf('postgres'), (client) => client.query(`CREATE DATABASE ${quoted(databaseName())}`))
}

function databaseName() {
  return decodeURIComponent(new URL(url).pathname.slice(1))
}

function urlOf(database) {
  const address = new URL(url)
  address.pathname = `/${database}`
  address.searchParams.delete('schema')
  return address.toString()
}

async function withClient(connectionString, use) {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

function quoted(name) {
  return `"${name.replaceAll('"', '""')}"`
}

async function runCleanup() {
  for (const action of cleanup) await action().catch(() => {})
}

function log(level, fields) {
  const line = { timestamp: new Date().toISOString(), level, fields, target: 'schema_engine::logger' }
  process.stderr.write(`${JSON.stringify(line)}\n`)
}
