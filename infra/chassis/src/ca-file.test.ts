import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CaFileWatch } from './ca-file'
import { until } from './testing'
import { TestAuthority } from './testing/test-authority'

describe('a CA bundle that is followed', () => {
  let folder: string
  let file: string
  let first: string
  let second: string
  let watch: CaFileWatch
  const taken: string[] = []
  const refused: string[] = []

  beforeAll(async () => {
    first = (await TestAuthority.create('First')).caPem
    second = (await TestAuthority.create('Second')).caPem
  })
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ares-bundle-'))
    file = join(folder, 'full_chain_ca.crt')
    await writeFile(file, first)
    taken.length = 0
    refused.length = 0
    const on = { taken: (pem: string) => taken.push(pem), refused: (problem: string) => refused.push(problem) }
    watch = new CaFileWatch(file, first, on, 10)
  })
  afterEach(async () => {
    watch.close()
    await rm(folder, { recursive: true })
  })

  const replace = async (text: string) => {
    await writeFile(`${file}.new`, text)
    await rename(`${file}.new`, file)
  }

  it('is told once when it was replaced, and not when the same was written again', async () => {
    await replace(first)
    await replace(second)
    await until(() => taken.length > 0)
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(taken).toEqual([second])
    expect(refused).toEqual([])
  })

  it('stays in use when what takes its place cannot be used, or is gone; the next good one is taken', async () => {
    await replace('nothing of use')
    await until(() => refused.length === 1)
    expect(refused[0]).toContain('holds no certificate')
    expect(watch.problem).toContain('holds no certificate')
    await rm(file)
    await until(() => refused.length === 2)
    expect(refused[1]).toContain('cannot be read (ENOENT)')
    expect(taken).toEqual([])
    await replace(second)
    await until(() => taken.length === 1)
    expect(watch.problem).toBeUndefined()
  })

  it('that is put back as it was is in use again without being told', async () => {
    await replace('nothing of use')
    await until(() => watch.problem !== undefined)
    await replace(first)
    await until(() => watch.problem === undefined)
    expect(taken).toEqual([])
  })
})
