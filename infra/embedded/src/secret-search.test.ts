import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { searchFiles, writingsOf } from './secret-search'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ares-search-'))
  mkdirSync(join(folder, 'deep/er'), { recursive: true })
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const SECRET = 'f4b1c9de-77aa-4f0e-9d21-0c5e8a6b3d42'
const search = async (content: string | Buffer) => {
  writeFileSync(join(folder, 'deep/er/file'), content)
  const { hits } = await searchFiles([folder], new Map([['it', writingsOf(SECRET)]]), { 'a shape': /\bsh-\d{4}\b/ })
  return hits
}
const FOUND = [{ what: 'it', path: 'deep/er/file' }]

it('finds a text anywhere in a file of any kind, also across the border of two chunks', async () => {
  expect(await search(`xx${SECRET}`)).toEqual(FOUND)
  expect(
    await search(Buffer.concat([Buffer.alloc(1_048_560, 0xff), Buffer.from(SECRET), Buffer.from([0, 1])])),
  ).toEqual(FOUND)
})

it.each([0, 1, 2, 3, 4, 5])('finds it in base64, %i bytes behind something else', async (shift) => {
  const around = Buffer.from(`${'k:'.repeat(3).slice(0, shift)}${SECRET}?>tail`)
  expect(await search(`authorization: Basic ${around.toString('base64')}`)).toEqual(FOUND)
  expect(await search(around.toString('base64url'))).toEqual(FOUND)
})

it('finds shapes, and nothing where nothing is', async () => {
  expect(await search('sh-1234')).toEqual([{ what: 'a shape', path: 'deep/er/file' }])
  expect(await search(SECRET.slice(0, -1))).toEqual([])
  expect(await search(Buffer.from(SECRET.slice(3)).toString('base64'))).toEqual([])
})
