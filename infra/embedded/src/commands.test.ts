import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { REPOSITORY } from './repository'

/** `npm run init`, `npm start`, `npm stop`: one job each, data kept between starts. The commands themselves, as a person runs them. */
const state = mkdtempSync(join(tmpdir(), 'ares-commands-'))
const running: ChildProcess[] = []

afterAll(async () => {
  await run('stop').catch(() => undefined)
  for (const child of running) child.kill('SIGKILL')
  rmSync(state, { recursive: true, force: true })
}, 60_000)

it('init prepares and leaves nothing running; start and stop keep the data; init alone wipes it', async () => {
  const init = await run('init', '--yes')
  expect(init.code).toBe(0)
  expect(existsSync(join(state, 'certs/ca/full_chain_ca.crt'))).toBe(true)
  expect((await run('stop')).output).toContain('Nothing runs')

  const first = start('--devices', '1')
  const address = await first.said(/REST\s+(http:\S+)/)
  const password = readFileSync(join(state, 'first-login.json'), 'utf8')
  const rows = await first.said(/curl -s -H '(Authorization: Bearer [^']+)' '([^']+)'/)
  const before = await items(rows[2] ?? '', rows[1] ?? '')
  expect(before.length).toBeGreaterThan(0)
  expect((await run('init', '--yes')).code).not.toBe(0) // while it runs, nothing is wiped
  expect((await run('stop')).output).toContain('Stopped')
  expect(await first.ended).toBe(0)
  expect(await fetch(address[1] ?? '').catch(() => 'gone')).toBe('gone')

  const second = start('--devices', '0')
  const again = await second.said(/REST\s+(http:\S+)/)
  expect(readFileSync(join(state, 'first-login.json'), 'utf8')).toBe(password)
  const { email, password: secret } = JSON.parse(password)
  const session = await fetch(`${again[1]}/sessions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password: secret }),
  })
  const { accessToken } = (await session.json()) as { accessToken: string }
  const path = new URL(rows[2] ?? '').pathname
  const after = await items(
    `${new URL(again[1] ?? '').origin}${path}?limit=1000`,
    `Authorization: Bearer ${accessToken}`,
  )
  expect(after).toEqual(expect.arrayContaining(before))
  expect((await run('stop')).code).toBe(0)
  expect(await second.ended).toBe(0)

  expect((await run('init', '--yes')).code).toBe(0)
  expect(existsSync(join(state, 'first-login.json')) && readFileSync(join(state, 'first-login.json'), 'utf8')).not.toBe(
    password,
  )
}, 240_000)

const command = (name: string, args: readonly string[]) => {
  const child = spawn(process.execPath, [
    join(REPOSITORY, 'scripts/run.mjs'),
    'infra/embedded/src/main.ts',
    name,
    '--state',
    state,
    ...args,
  ])
  running.push(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data) => {
      output += data
    })
  const ended = once(child, 'exit').then(([code]) => code as number)
  return { child, ended, output: () => output }
}

async function run(name: string, ...args: string[]): Promise<{ code: number; output: string }> {
  const { ended, output } = command(name, args)
  return { code: await ended, output: output() }
}

function start(...args: string[]) {
  const { ended, output } = command('start', ['--http-port', '0', '--mqtt-port', '0', '--wss-port', '0', ...args])
  let over = false
  ended.then(() => {
    over = true
  })
  const said = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const match = pattern.exec(output())
      if (match) return match
      if (over) throw new Error(`start ended: ${output()}`)
      await sleep(100)
    }
  }
  return { said, ended }
}

async function items(url: string, authorization: string): Promise<unknown[]> {
  const answer = await fetch(url, { headers: { authorization: authorization.replace('Authorization: ', '') } })
  if (!answer.ok) throw new Error(await answer.text())
  return ((await answer.json()) as { items: unknown[] }).items
}
