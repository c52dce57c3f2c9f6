import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { launchCommand } from './child-process'
import { isAlive } from './foreign-process'
import { PartLog } from './part-log'
import { type PartEvent, SupervisedPart } from './supervised-part'

describe('SupervisedPart', () => {
  let dir: string
  let events: PartEvent[]
  let heard: (() => void) | undefined
  const parts: SupervisedPart[] = []

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'ares-part-'))
    events = []
  })
  afterEach(async () => {
    await Promise.all(parts.splice(0).map((part) => part.stop()))
    rmSync(dir, { recursive: true, force: true })
  })

  function partOf(command: string): SupervisedPart {
    const log = new PartLog(join(dir, 'part.log'))
    const probe = async () => (log.tail(100).includes('serving') ? undefined : 'it says nothing')
    const part = new SupervisedPart({
      name: 'sleeper',
      launch: async () =>
        launchCommand(command, { env: process.env, log, probe, readyWithinMs: 5_000, stopWithinMs: 200 }),
      lastLines: () => log.tail(3),
      onEvent: (event) => {
        events.push(event)
        heard?.()
      },
      onProcess: () => {},
    })
    parts.push(part)
    return part
  }

  async function event(kind: PartEvent['kind']): Promise<PartEvent> {
    for (;;) {
      const found = events.find((candidate) => candidate.kind === kind)
      if (found) return found
      await new Promise<void>((resolve) => {
        heard = resolve
      })
    }
  }

  it('starts a part again that was killed, and says what it said last', async () => {
    const part = partOf('echo serving; exec sleep 60')
    await part.start()
    const first = part.pid
    part.kill('SIGKILL')
    expect(await event('died')).toMatchObject({ part: 'sleeper', why: 'killed by SIGKILL', lastLines: ['serving'] })
    await event('back')
    expect(part.pid).not.toBe(first)
    expect(isAlive(part.pid!)).toBe(true)
  })

  it('ends the whole group, and kills what does not listen', async () => {
    const part = partOf("trap '' TERM; sleep 61 & echo serving; while true; do sleep 0.1; done")
    await part.start()
    const pid = part.pid!
    await part.stop()
    expect(isAlive(pid)).toBe(false)
    expect(part.pid).toBeUndefined()
    expect(events).toEqual([])
  })

  it('tells why a part does not start, with its last words', async () => {
    await expect(partOf('echo no such luck; exit 3').start()).rejects.toThrow(/exit code 3[\s\S]*no such luck/)
  })

  it('stops a part that is still starting', async () => {
    const part = partOf('exec sleep 60')
    const starting = part.start()
    await new Promise((resolve) => setTimeout(resolve, 100))
    await part.stop()
    await expect(starting).rejects.toThrow()
    expect(part.pid).toBeUndefined()
  })

  it('stays down when it was stopped, and comes back when it is started', async () => {
    const part = partOf('echo serving; exec sleep 60')
    await part.start()
    await part.stop()
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(part.pid).toBeUndefined()
    await part.start()
    expect(isAlive(part.pid!)).toBe(true)
  })
})
