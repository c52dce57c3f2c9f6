import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'

// Each test starts a Node process that compiles its sources; on a busy machine that takes its time.
jest.setTimeout(90_000)

/** Starts the sample process. */
function start(scenario: string, env: NodeJS.ProcessEnv = {}) {
  const file = path.join(__dirname, 'testing', 'service-process.ts')
  const child: ChildProcess = spawn(process.execPath, ['--conditions=source', '--import', 'tsx', file], {
    env: { PATH: process.env.PATH, SCENARIO: scenario, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  let out = ''
  let err = ''
  child.stdout?.on('data', (part) => {
    out += part
  })
  child.stderr?.on('data', (part) => {
    err += part
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)))
  const said = async (text: string) => {
    while (!out.includes(text)) {
      if (child.exitCode !== null) throw new Error(`it ended: ${out}${err}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  return { child, ended, said, out: () => out, err: () => err }
}

describe('the process of a service', () => {
  it('prints every problem of its settings and ends with 1', async () => {
    const { ended, err } = start('settings')
    expect(await ended).toBe(1)
    expect(err()).toBe(
      'sample cannot go on. The settings are not usable:\n  - ARES_A: is not set\n  - ARES_B: is not set\n',
    )
  })

  it('prints why it could not start, with the cause and without secrets', async () => {
    const { ended, err } = start('start')
    expect(await ended).toBe(1)
    expect(err()).toContain('sample cannot go on. Error: the port is taken')
    expect(err()).toContain('because: token [redacted]')
  })

  it('does not go on after an error that nobody caught', async () => {
    const { ended, err } = start('later')
    expect(await ended).toBe(1)
    expect(err()).toContain('something broke')
  })

  it.each(['SIGTERM', 'SIGINT'] as const)('stops at %s and ends with 0', async (signal) => {
    const { child, ended, said, out } = start('serve')
    await said('"ready"')
    child.kill(signal)
    expect(await ended).toBe(0)
    expect(out()).toContain(`"message":"stopped","signal":"${signal}"`)
  })

  it('ends soon when it is stopped while it waits for something at its start', async () => {
    const { child, ended, said } = start('slow')
    await said('"starting"')
    child.kill('SIGTERM')
    expect(await ended).toBe(1)
  })

  it('gets its credential from its parent over the message channel', async () => {
    const calls: string[] = []
    const vault = createServer((request, response) => {
      calls.push(`${request.url} ${request.headers['x-vault-token'] ?? ''}`.trim())
      const data = request.url?.endsWith('lookup')
        ? { creation_path: 'auth/approle/role/listener/secret-id', creation_ttl: 60 }
        : { secret_id: 'the-secret' }
      response.end(JSON.stringify({ data }))
    }).listen(0, '127.0.0.1')
    await new Promise((resolve) => vault.once('listening', resolve))
    const address = `http://127.0.0.1:${(vault.address() as AddressInfo).port}`
    const { child, ended, said, out } = start('credential', { VAULT: address })
    child.on('message', (message: { type: string; id: string }) => {
      expect(message.type).toBe('ares-credential-request')
      child.send({ type: 'ares-credential', id: 'of another request', roleId: 'r', wrappedSecretId: 'wrong' })
      child.send({ type: 'ares-credential', id: message.id, roleId: 'r', wrappedSecretId: 'wrap-1' })
    })
    await said('"ready"')
    child.kill('SIGTERM')
    await ended
    vault.close()
    vault.closeAllConnections()
    expect(calls).toEqual(['/v1/sys/wrapping/lookup', '/v1/sys/wrapping/unwrap wrap-1'])
    expect(out()).not.toContain('the-secret')
  })
})
