import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, posix, relative, resolve } from 'node:path'
import ts from 'typescript'

/**
 * Domains talk through the contract: what may import what, read from the sources themselves.
 * A half-moved module or a reach into another room's tables fails here, not in production.
 */
const ROOT = resolve(__dirname, '../../..')

interface Import {
  readonly from: string
  /** A file of the repository, or the name of a package. */
  readonly to: string
}

const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '*.ts'], { cwd: ROOT, encoding: 'utf8' })
  .split('\n')
  .filter((file) => file !== '' && existsSync(join(ROOT, file)))
const imports = files.flatMap(importsOf)
const ofTests = ({ from }: Import) => /\.test\.ts$|\/testing\/|\.bench\.ts$/.test(from)
const production = imports.filter((each) => !ofTests(each))

it('reads imports at all', () => {
  expect(imports).toContainEqual({ from: 'infra/embedded/src/architecture.test.ts', to: 'typescript' })
  expect(production).toContainEqual({ from: 'services/api/src/main.ts', to: 'services/api/src/service.ts' })
})

it('only api imports a database client, beside the stack that starts the server and the tools that count its rows', () => {
  const clients = /^(pg|pg-.*|@prisma\/.*|prisma)$/
  const users = production.filter(({ to }) => clients.test(to)).map(({ from }) => from.split('/').slice(0, 2).join('/'))
  expect([...new Set(users)].filter((place) => !place.startsWith('infra/'))).toEqual(['services/api'])
})

it('only the listener speaks MQTT among the services, and only the chassis talks to Vault through node-vault', () => {
  const users = (name: string) => production.filter(({ to }) => to === name).map(({ from }) => from)
  expect(users('mqtt').filter((file) => /^services\/(?!listener\/)/.test(file))).toEqual([])
  expect(users('node-vault').filter((file) => !file.startsWith('infra/chassis/'))).toEqual([])
})

it('no deployable imports another one', () => {
  const crossings = production.filter(({ from, to }) => {
    const ours = /^services\/(\w+)\//.exec(from)?.[1]
    const theirs = /^services\/(\w+)\//.exec(to)?.[1] ?? /^@ares\/(api|listener|authorizer)\b/.exec(to)?.[1]
    return ours !== undefined && theirs !== undefined && ours !== theirs
  })
  expect(crossings).toEqual([])
})

it('in api only the stores know Prisma and SQL, beside what opens the database', () => {
  const users = files.filter(
    (file) =>
      /^services\/api\/src\//.test(file) &&
      !ofTests({ from: file, to: '' }) &&
      !/\.store\.ts$|\/src\/(database|generated|migrate\.ts)/.test(file) &&
      KNOWS_THE_DATABASE.test(readFileSync(join(ROOT, file), 'utf8')),
  )
  expect(users.map((file) => file.slice('services/api/src/'.length)).sort()).toEqual(SQL_OUTSIDE_OF_STORES)
})

/** A transaction may be handed on; only a store uses it. */
const KNOWS_THE_DATABASE =
  /from 'pg'|\bPrisma(Client)?\b|\b(tx|pool|prisma)\.[$\w]|\.\$(transaction|queryRaw|executeRaw)/

/** What stands here has a reason; what is new belongs into a store. */
const SQL_OUTSIDE_OF_STORES = [
  // Work on a timer, or in batches, of a statement or two: to part them would leave two files that say nothing alone.
  'features/dead-letters/dead-letters.upkeep.ts',
  // The end of every transaction that changes the directory, in whatever room.
  'features/directory/directory.changes.ts',
  'features/governor/governor.memory.ts',
  // A connection of its own, which holds a lock as long as it lasts.
  'features/governor/leadership.ts',
  'features/rollups/rollups.query.ts',
  'features/rollups/rollups.ts',
  'features/telemetry/count-folding.ts',
  'features/telemetry/last-seen.ts',
  'features/telemetry/over-budget.ts',
  'features/telemetry/partitions.ts',
  // It hands on the connection of another store's transaction.
  'features/telemetry/telemetry.replay.ts',
  'features/telemetry/telemetry.upkeep.ts',
  // One query stands before every route.
  'http/access.ts',
  // A NOTIFY to the other replicas.
  'telemetry-rooms.ts',
]

it("a room of api calls another room's service, never its store", () => {
  const room = (file: string) => /^services\/api\/src\/features\/([\w-]+)\//.exec(file)?.[1]
  const reaches = production.filter(
    ({ from, to }) => room(from) && room(to) && room(from) !== room(to) && /\.store(\.ts)?$/.test(to),
  )
  expect(reaches).toEqual([])
})

it('the packages depend on each other in one direction only', () => {
  const allowed: Readonly<Record<string, readonly string[]>> = {
    proto: [],
    'infra/chassis': ['@ares/proto'],
    vault: ['@ares/proto', '@ares/chassis'],
    emqx: ['@ares/proto', '@ares/chassis'],
    'services/api': ['@ares/proto', '@ares/chassis'],
    'services/listener': ['@ares/proto', '@ares/chassis'],
    'services/authorizer': ['@ares/proto', '@ares/chassis'],
    'infra/simulator': ['@ares/proto', '@ares/chassis'],
  }
  const wrong = production.filter(({ from, to }) => {
    const place = Object.keys(allowed).find((name) => from.startsWith(`${name}/`))
    const target = /^@ares\/[\w-]+/.exec(to)?.[0]
    return place !== undefined && target !== undefined && !allowed[place]?.includes(target)
  })
  expect(wrong).toEqual([])
})

it('every import leads somewhere, and no file is a remain of a move', () => {
  const dangling = imports.filter(({ to }) => to.startsWith('missing:'))
  expect(dangling.filter(({ to }) => !to.includes('/generated/'))).toEqual([])
  expect(files.filter((file) => /(_old|[-_.]old|[-_]v2|\.orig|[-_]copy|[-_]backup)\.ts$/.test(file))).toEqual([])
})

it('only config.ts files read the environment of a service', () => {
  const readers = files.filter(
    (file) =>
      /^(services|vault)\//.test(file) &&
      !/\.test\.ts$|\/testing\/|\.bench\.ts$|\/(config|main|binary|server|wheel)\.ts$|prisma\.config\.ts$/.test(file) &&
      /process\.env\b/.test(readFileSync(join(ROOT, file), 'utf8')),
  )
  expect(readers).toEqual([])
})

function importsOf(file: string): Import[] {
  const found = ts.preProcessFile(readFileSync(join(ROOT, file), 'utf8'), true, true).importedFiles
  return found.map(({ fileName }) => ({ from: file, to: target(file, fileName) }))
}

function target(file: string, name: string): string {
  if (!name.startsWith('.')) return name
  const path = posix.normalize(relative(ROOT, resolve(ROOT, dirname(file), name)))
  return (
    [path, `${path}.ts`, `${path}/index.ts`].find((each) => /\.\w+$/.test(each) && existsSync(join(ROOT, each))) ??
    `missing:${path}`
  )
}
