import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { replaceFile } from './file-replacement'

/** What reached the disk in which order; a power cut cannot be caused here. */
const mockCalls: string[] = []
jest.mock('node:fs/promises', () => {
  const real = jest.requireActual<typeof import('node:fs/promises')>('node:fs/promises')
  return {
    ...real,
    async open(...args: Parameters<typeof real.open>) {
      const handle = await real.open(...args)
      const sync = handle.sync.bind(handle)
      const kind = (await handle.stat()).isDirectory() ? 'the directory' : 'the file'
      handle.sync = async () => {
        mockCalls.push(`fsync of ${kind}, ${(await handle.stat()).isDirectory() ? '' : (await handle.stat()).size}`)
        return sync()
      }
      return handle
    },
    async rename(...args: Parameters<typeof real.rename>) {
      mockCalls.push('rename')
      return real.rename(...args)
    },
  }
})

let dir: string
let file: string
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'ares-replace-'))
  file = path.join(dir, 'full_chain_ca.crt')
  mockCalls.length = 0
})
afterEach(() => rm(dir, { recursive: true }))

it('writes the whole, fsync, rename, fsync of the directory', async () => {
  await replaceFile(file, 'whole', { mode: 0o640 })
  expect(mockCalls).toEqual(['fsync of the file, 5', 'rename', 'fsync of the directory, '])
  expect((await stat(file)).mode & 0o777).toBe(0o640)
})

it('a reader sees the old or the new, never a part and never nothing', async () => {
  const contents = ['a', 'b'].map((letter) => letter.repeat(300_000))
  await replaceFile(file, contents[0] ?? '', { mode: 0o644 })
  let writing = true
  const seen = new Set<string>()
  const reading = (async () => {
    while (writing) seen.add(await readFile(file, 'utf8'))
  })()
  for (let n = 1; n <= 60; n++) await replaceFile(file, contents[n % 2] ?? '', { mode: 0o644 })
  writing = false
  await reading
  for (const text of seen) expect(contents.includes(text)).toBe(true)
})

it('leaves the old one and nothing beside it when it fails', async () => {
  await replaceFile(file, 'old', { mode: 0o644 })
  await expect(replaceFile(file, 42 as unknown as string, { mode: 0o644 })).rejects.toThrow()
  expect(await readdir(dir)).toEqual(['full_chain_ca.crt'])
  expect(await readFile(file, 'utf8')).toBe('old')
})
