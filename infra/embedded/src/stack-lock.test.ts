import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bornAt, goneWithin, isAlive } from './foreign-process'
import { StackLock } from './stack-lock'
import { StateFolder } from './state-folder'

const quiet = () => {}

describe('StackLock', () => {
  let state: StateFolder
  beforeEach(() => {
    state = new StateFolder(mkdtempSync(join(tmpdir(), 'ares-lock-')))
    state.make()
  })
  afterEach(() => rmSync(state.path, { recursive: true, force: true }))

  it('lets a stack run once, and says who runs it', async () => {
    const lock = await StackLock.take(state, quiet)
    await expect(StackLock.take(state, quiet)).rejects.toThrow(`process ${process.pid} has it since`)
    expect(StackLock.holder(state)?.pid).toBe(process.pid)
    lock.release()
    expect(StackLock.holder(state)).toBeUndefined()
    expect(existsSync(state.lock)).toBe(false)
  })

  it('takes over from a holder that is gone, and ends what that left running', async () => {
    const left = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' })
    const parts = { broker: { pid: left.pid, born: bornAt(left.pid!) } }
    writeFileSync(state.lock, JSON.stringify({ pid: 2 ** 22 + 1, born: '1', startedAt: 'yesterday', parts }))
    const said: string[] = []
    const lock = await StackLock.take(state, (line) => said.push(line))
    expect(said.join()).toContain('taking over')
    expect(await goneWithin(left.pid!, 2_000)).toBe(true)
    lock.release()
  })

  it('is not fooled by an id that was given out again', async () => {
    const stranger = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' })
    const parts = { broker: { pid: stranger.pid, born: '1' } }
    writeFileSync(state.lock, JSON.stringify({ pid: stranger.pid, born: '1', startedAt: 'yesterday', parts }))
    expect(StackLock.holder(state)).toBeUndefined()
    expect(await StackLock.clearStale(state)).toBe(true)
    expect(isAlive(stranger.pid!)).toBe(true)
    stranger.kill('SIGKILL')
  })

  it('remembers the processes of the parts', async () => {
    const lock = await StackLock.take(state, quiet)
    lock.holds('api', process.pid)
    expect(JSON.parse(readFileSync(state.lock, 'utf8')).parts.api.pid).toBe(process.pid)
    lock.holds('api', undefined)
    expect(JSON.parse(readFileSync(state.lock, 'utf8')).parts).toEqual({})
    lock.release()
  })
})
