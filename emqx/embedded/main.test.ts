import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { TestBroker } from './testing/test-broker'

describe('the embedded broker as a process', () => {
  let machine: TestBroker
  beforeAll(async () => {
    machine = await TestBroker.start()
  })
  afterAll(() => machine.stop())

  const start = (env: Record<string, string | undefined>) =>
    spawn(process.execPath, ['--conditions=source', '--import', 'tsx', join(__dirname, 'main.ts')], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })

  test('runs emqx.conf in the foreground, says its ports in one JSON line, and ends with 0 at SIGTERM', async () => {
    const child = start({ ...machine.environment, EMQX_CONF: machine.confFile })
    const lines = createInterface({ input: child.stdout })
    const ready = await new Promise<{ ports: Record<string, number> }>((resolve) => {
      lines.on('line', (line) => {
        const entry = JSON.parse(line)
        if (entry.message === 'ready') resolve(entry)
      })
    })
    expect(Object.keys(ready.ports).sort()).toEqual(['devices', 'management', 'services', 'users'])
    const status = await fetch(`http://127.0.0.1:${ready.ports.management}/api/v5/status`)
    expect(await status.text()).toContain('emqx is running')
    const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)))
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  test('ends with 1 and names the file when a certificate is missing', async () => {
    const env = { ...machine.environment, EMQX_LISTENERS__SSL__DEVICES__SSL_OPTIONS__CERTFILE: '/nowhere/emqx.crt' }
    const child = start({ ...env, EMQX_CONF: machine.confFile })
    let told = ''
    child.stderr.on('data', (chunk) => {
      told += chunk
    })
    expect(await new Promise((resolve) => child.once('exit', (code) => resolve(code)))).toBe(1)
    expect(told).toContain('/nowhere/emqx.crt cannot be read')
  })
})
