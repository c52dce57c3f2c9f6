import type { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { createVaultClient, splitPem } from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { DEMO_FLEET, enroll, provisionFleet, SimulatedDevice } from '@ares/simulator'
import { ca } from './command-ca'
import { type Stack, startStack } from './stack'

/** What the running stack does about its Vault: one that dies is opened again, and its intermediate can be replaced. */
let stack: Stack
let device: SimulatedDevice | undefined
let reporting: NodeJS.Timeout | undefined
beforeAll(async () => {
  stack = await startStack({
    stateDir: mkdtempSync(join(tmpdir(), 'ares-vault-life-')),
    ports: { http: 0, mqtt: 0, wss: 0 },
    env: { api: { ARES_DEVICE_CERTIFICATE_LIFE: '1m' } },
    postgresSettings: { fsync: 'off', full_page_writes: 'off' },
  })
}, 150_000)
afterAll(async () => {
  clearInterval(reporting)
  await device?.stop()
  await stack?.stop()
  stack?.state.remove()
}, 60_000)

it('a Vault that is killed comes back unsealed, and services that start then get their credentials', async () => {
  const before = stack.pidOf('vault')
  stack.kill('vault', 'SIGKILL')
  const vault = createVaultClient(stack.vault)
  await until(() => stack.pidOf('vault') !== undefined && stack.pidOf('vault') !== before, 'a new process')
  await until(async () => (await vault.health().catch(() => undefined))?.state === 'active', 'an open Vault')
  vault.close()
  // They are started by the parent, whose agent has lived through it.
  for (const name of ['listener', 'authorizer'] as const) stack.kill(name, 'SIGKILL')
  await sleep(200)
  for (const name of ['listener', 'authorizer', 'api'] as const) await stack.waitUntilReady(name, 60_000)
  expect(stack.lastLines('listener', 200).join('\n')).not.toContain('ALARM')
}, 120_000)

it('its intermediate is replaced by "npm run ca" while everything runs, and a device whose certificate lives for a minute renews', async () => {
  const running = await startDevice()
  device = running
  reporting = setInterval(() => running.report(), 100)
  const run = (...args: string[]) => ca([...args, '--state', stack.state.path])
  await expect(run('switch')).rejects.toMatchObject({
    why: expect.stringContaining('rotate-intermediate add comes first'),
  })
  expect(await run('add')).toBe(0)
  expect(splitPem(readFileSync(stack.caFile, 'utf8'))).toHaveLength(3)
  for (const name of ['api', 'listener', 'authorizer'] as const) {
    await until(
      async () => /bundle_changes_total\{result="taken"[^}]*\} 1/.test(await metrics(name)),
      `${name} takes the bundle up`,
    )
  }
  expect(await run('switch', '--settle', '0')).toBe(0)
  // Faster than the agent's minute: nothing here depends on when exactly it looks.
  await until(async () => (await issuerOfBroker()) === 'Ares Intermediate CA 2', 'the broker moves over', 90_000)
  expect(await run('retire')).toBe(3)
  for (const name of ['api', 'listener', 'authorizer'] as const) await stack.waitUntilReady(name)

  // By itself, when half of the minute is over.
  const stats = () => running.stats()
  await until(() => stats().renewed > 0, 'a renewed certificate', 60_000)
  clearInterval(reporting)
  await until(() => stats().waiting === 0, 'every receipt')
  const { made } = stats()
  expect(stats()).toMatchObject({ committed: made, refused: 0, dropped: 0 })
}, 240_000)

async function startDevice(): Promise<SimulatedDevice> {
  const [member] = await provisionFleet(stack.client(), { ...DEMO_FLEET, devices: 1 })
  if (!member) throw new Error('there is no device')
  const identity = await enroll(stack.client(), member.id)
  expect(identity.expiresAt.getTime() - Date.now()).toBeLessThan(65_000)
  // It reports when it is told to: then every report can be waited for.
  const made = new SimulatedDevice(member, identity, { mqttUrl: stack.urls.mqtt, intervalMs: 0 })
  made.start()
  return made
}

const metrics = async (name: 'api' | 'listener' | 'authorizer'): Promise<string> =>
  (await fetch(`${stack.opsUrl(name)}/metrics`)).text()

async function issuerOfBroker(): Promise<string> {
  const bundle = readFileSync(stack.caFile)
  const socket = connect({ port: stack.ports.wss, host: '127.0.0.1', servername: 'localhost', ca: bundle })
  try {
    await once(socket, 'secureConnect')
    return (socket.getPeerX509Certificate() as X509Certificate).issuer.replace('CN=', '')
  } finally {
    socket.destroy()
  }
}
