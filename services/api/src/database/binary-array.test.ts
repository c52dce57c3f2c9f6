import { createTestDatabase, type TestDatabase } from '@ares/embedded/testing'
import { Client } from 'pg'
import { doubleArray, intArray, jsonbArray } from './binary-array'

let database: TestDatabase
let client: Client

beforeAll(async () => {
  database = await createTestDatabase()
  client = new Client({ connectionString: database.url })
  await client.connect()
})
afterAll(async () => {
  await client?.end()
  await database?.drop()
})

const read = async (ints: readonly number[], doubles: readonly number[], documents: readonly unknown[]) => {
  const { rows } = await client.query(
    'SELECT $1::int4[] AS ints, $2::float8[] AS doubles, to_json($3::jsonb[]) AS documents',
    [intArray(ints), doubleArray(doubles), jsonbArray(documents.map((document) => JSON.stringify(document)))],
  )
  return rows[0]
}

it('is read by PostgreSQL as what it holds', async () => {
  const ints = [0, 1, -1, 2 ** 31 - 1, -(2 ** 31)]
  const doubles = [0, -0.5, 1_765_184_400_000.5, Number.MAX_VALUE, 5e-324]
  const documents = [{}, { t: 1.5, on: true }, { note: 'a "quoted" \\ line\nbreak, ünïcode 𝄞 €' }, [1, [2]], 'text']
  expect(await read(ints, doubles, documents)).toEqual({ ints, doubles, documents })
})

it('may be empty', async () => {
  expect(await read([], [], [])).toEqual({ ints: [], doubles: [], documents: [] })
})
