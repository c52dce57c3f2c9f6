import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  CredentialAlarm,
  type CredentialSource,
  createLogger,
  createMetrics,
  createVaultClient,
  credentialsFrom,
  Health,
  type IdentityOptions,
  type Leaf,
  loadCaFile,
  NoFreshCredential,
  ServiceIdentity,
  type VaultClient,
  VaultError,
} from '@ares/chassis'
import { until } from '@ares/chassis/testing'
import { agentCredentialsFromBootstrap, VaultAgent } from './index'
import { FaultProxy } from './testing/fault-proxy'
import { startTestVault, type TestVault } from './testing/test-vault'
import { issueWrappedSecretId } from './wrapped-secret-id'

// What befalls a service when Vault is in trouble: it lives on until its certificate really ends, says what is wrong by
// name in readiness and metrics, and heals by itself.

let vault: TestVault
let caPem: string
beforeAll(async () => {
  vault = await startTestVault()
  caPem = await loadCaFile(path.join(vault.certsDir, 'ca', 'full_chain_ca.crt'))
}, 120_000)
afterAll(() => vault?.stop())

const open: Array<{ stop(): Promise<void> }> = []
afterEach(async () => {
  process.kill(vault.server.pid, 'SIGCONT')
  await vault.unseal()
  for (const each of open.splice(0).reverse()) await each.stop()
}, 60_000)

const keep = <T extends { stop(): Promise<void> }>(part: T): T => {
  open.push(part)
  return part
}

/** A listener's identity that looks at Vault often, and what it says about itself. */
function prepare(more: Partial<IdentityOptions> = {}) {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  const health = new Health()
  const metrics = createMetrics('listener')
  const create = async () =>
    keep(
      await ServiceIdentity.create({
        name: 'listener',
        vaultAddress: vault.address,
        vaultCaPem: vault.caPem,
        caPem,
        credentials: vault.credentials('listener'),
        logger: createLogger({ service: 'listener', level: 'debug', stream }),
        health,
        metrics,
        watchEveryMs: 50,
        ...more,
      }),
    )
  const check = async (name: string) => (await health.report()).checks[name]
  const count = async (name: string, label = ''): Promise<number> => {
    const line = (await metrics.metrics()).split('\n').find((each) => each.startsWith(name) && each.includes(label))
    return Number(line?.split(' ').at(-1))
  }
  return { create, health, check, count, log: () => lines.join('') }
}

/** A secret id works once; Vault knows nothing of one that did. */
const isUsedUp = async (secretId: string): Promise<boolean> => {
  const path = 'auth/approle/role/listener/secret-id/lookup'
  const found = await vault.adminClient.write(path, { secret_id: secretId })
  return found?.data?.secret_id_num_uses === undefined
}

const isState = async (service: ReturnType<typeof prepare>, state: string) =>
  (await service.count('ares_vault_state{', `state="${state}"`)) === 1

describe('Vault in trouble', () => {
  it('sealed: the service stays ready and says so, and is well when it is unsealed', async () => {
    const service = prepare()
    const identity = await service.create()
    const leaf = identity.current()
    await vault.seal()
    await until(() => isState(service, 'sealed'), 'sealed')
    expect(await service.health.report()).toMatchObject({
      ok: true,
      degraded: true,
      checks: {
        vault: { ok: true, degraded: true, detail: expect.stringMatching(/^sealed: /) },
        certificate: { ok: true },
      },
    })
    expect(service.log()).toContain('Vault is in trouble')
    await vault.unseal()
    await until(async () => !(await service.health.report()).degraded, 'well')
    expect(await isState(service, 'active')).toBe(true)
    expect(identity.current()).toBe(leaf)
    await identity.renew()
  })

  it('unreachable: the same, under that name', async () => {
    const proxy = keep(await FaultProxy.start(vault.server.port))
    const service = prepare({ vaultAddress: proxy.address })
    const identity = await service.create()
    proxy.close()
    await until(() => isState(service, 'unreachable'), 'unreachable')
    expect(await service.check('vault')).toMatchObject({
      ok: true,
      degraded: true,
      detail: expect.stringMatching(/^unreachable: .*cannot be reached/),
    })
    expect((await service.health.report()).ok).toBe(true)
    await expect(identity.renew()).rejects.toMatchObject({ code: 'unreachable' })
    expect(await service.count('ares_vault_errors_total{', 'code="unreachable"')).toBeGreaterThan(0)
    proxy.open()
    await until(async () => !(await service.health.report()).degraded, 'well')
  })

  it('slow: it is named while answers take more than a second, and works all the same', async () => {
    const proxy = keep(await FaultProxy.start(vault.server.port))
    const service = prepare({ vaultAddress: proxy.address })
    const identity = await service.create()
    const first = identity.current()
    proxy.delayMs = 1_300
    await until(() => isState(service, 'slow'), 'slow')
    expect((await service.check('vault'))?.detail).toMatch(/^slow: it took \d+ ms/)
    await identity.renew()
    expect(identity.current().serial).not.toBe(first.serial)
    proxy.delayMs = 0
    await until(async () => !(await service.health.report()).degraded, 'well')
  })

  it('stopped in its tracks (SIGSTOP): calls end at their limit, and it goes on when Vault does', async () => {
    const service = prepare()
    const identity = await service.create()
    process.kill(vault.server.pid, 'SIGSTOP')
    const renewing = identity.renew().catch((error: VaultError) => error)
    await until(() => isState(service, 'slow'), 'slow')
    expect((await service.check('vault'))?.detail).toContain('no whole answer in')
    expect(await renewing).toMatchObject({ code: 'timeout' })
    expect((await service.health.report()).ok).toBe(true)
    process.kill(vault.server.pid, 'SIGCONT')
    await until(async () => (await service.check('certificate'))?.degraded === undefined, 'renewed')
    expect((await service.health.report()).degraded).toBe(false)
  })

  it('away until the certificate has ended: only then it is not ready; it heals by itself', async () => {
    const service = prepare({ ttl: '4s' })
    const identity = await service.create()
    await vault.seal()
    while (Date.now() < identity.current().notAfter.getTime() - 300) {
      expect((await service.health.report()).ok).toBe(true)
      await sleep(100)
    }
    await until(async () => !(await service.health.report()).ok, 'ended')
    expect((await service.check('certificate'))?.detail).toMatch(/ended at .*sealed/)
    expect((await service.check('vault'))?.detail).toMatch(/^sealed: /)
    await vault.unseal()
    const backAt = Date.now()
    await until(async () => (await service.health.report()).ok, 'ready')
    expect(Date.now() - backAt).toBeLessThan(5_000)
  })
})

describe('a token', () => {
  const role = 'auth/approle/role/listener'

  it('that ran out while Vault was sealed is replaced by a new login as soon as Vault is back', async () => {
    const before = (await vault.adminClient.read(role))?.data.token_period
    await vault.adminClient.write(role, { token_period: 2 })
    try {
      const service = prepare()
      const identity = await service.create()
      const token = identity.vault.token
      await vault.seal()
      await sleep(3_000) // the clock of the token runs while Vault is sealed
      expect(await service.health.report()).toMatchObject({ ok: true, degraded: true })
      expect(await service.check('vault-token')).toMatchObject({ ok: true, degraded: true })
      expect(await service.count('ares_vault_token_held')).toBe(0)
      await vault.unseal()
      await until(() => identity.vault.token !== undefined && identity.vault.token !== token, 'a new token')
      await until(async () => !(await service.health.report()).degraded, 'well')
      expect(await service.count('ares_vault_logins_total{', 'result="ok"')).toBe(2)
      expect(await service.count('ares_vault_token_held')).toBe(1)
      await identity.renew()
    } finally {
      await vault.adminClient.write(role, { token_period: before })
    }
  }, 60_000)

  it('cannot be had with a used-up secret id: the service waits for another, ready and with the reason', async () => {
    const real = vault.credentials('listener')
    const used = await real.next()
    let answer: CredentialSource = real
    const service = prepare({ credentials: { next: (signal) => answer.next(signal) } })
    const identity = await service.create()
    const nobody = createVaultClient(vault)
    await nobody.login(used.roleId, used.secretId)
    nobody.close()
    answer = { next: async () => used }
    await identity.vault.revokeSelf()
    await expect(identity.renew()).rejects.toMatchObject({ code: 'token_gone' })
    await until(async () => (await service.count('ares_vault_login_refusals_total{', 'rejected')) > 0, 'refused')
    expect(await service.health.report()).toMatchObject({ ok: true, degraded: true })
    expect((await service.check('vault-token'))?.detail).toContain('invalid role or secret ID')
    answer = real
    await until(async () => (await service.check('vault-token'))?.degraded === undefined, 'well')
    await identity.renew()
  }, 60_000)

  it('whose login was carried out and not answered is no reason to give up at the start', async () => {
    const proxy = keep(await FaultProxy.start(vault.server.port))
    const real = vault.credentials('listener')
    let asked = 0
    const credentials: CredentialSource = {
      async next() {
        asked += 1
        const credential = await real.next()
        if (asked === 1) {
          proxy.swallow = true
          void until(() => isUsedUp(credential.secretId), 'the login carried out', 50_000).then(() => {
            proxy.swallow = false
          })
        }
        return credential
      },
    }
    const service = prepare({ vaultAddress: proxy.address, credentials })
    const identity = await service.create()
    expect(identity.current().commonName).toBe('listener.service.ares4.internal')
    expect(asked).toBe(2)
    expect(service.log()).toContain('its answer lost')
  }, 60_000)
})

describe('a clock that is ten minutes', () => {
  it.each([
    ['slow', -600_000],
    ['fast', 600_000],
  ])('%s is named, and neither login nor certificate fails of it', async (_, offMs) => {
    const service = prepare({ now: () => Date.now() + offMs })
    const identity = await service.create()
    await identity.renew()
    await until(async () => (await service.check('vault'))?.degraded === true, 'the skew')
    expect((await service.check('vault'))?.detail).toMatch(
      offMs > 0 ? /clock_skew: .* 6\d\d|5\d\d s ahead of/ : /clock_skew: .* s behind/,
    )
    expect(await service.health.report()).toMatchObject({ ok: true, checks: { certificate: { ok: true } } })
    const measured = await service.count('ares_vault_clock_skew_seconds')
    expect(Math.abs(measured - offMs / 1_000)).toBeLessThan(10)
    expect(await service.count('ares_vault_state{', 'state="active"')).toBe(1)
  })

  it.each([
    ['slow', -600],
    ['fast', 600],
  ])('%s: a peer with it accepts a fresh certificate in both directions (OpenSSL)', async (_, offSeconds) => {
    const leaf = (await prepare().create()).current()
    await expect(opensslHandshake(leaf, offSeconds)).resolves.toMatchObject({ client: 0 })
  })
})

describe('a wrapped credential', () => {
  let directory: string
  let client: VaultClient
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'ares-credentials-'))
    client = createVaultClient(vault)
  })
  afterEach(async () => {
    client.close()
    await rm(directory, { recursive: true })
  })
  const deliver = async (service: 'listener' | 'authorizer' = 'listener') => {
    const credential = await issueWrappedSecretId(vault.adminClient, service)
    await writeFile(path.join(directory, 'role-id'), credential.roleId)
    await writeFile(path.join(directory, 'wrapped-secret-id'), credential.wrapToken)
    return credential
  }
  const source = (graceMs = 15_000) => credentialsFrom(directory, { client, service: 'listener', graceMs })

  it('is waited for by a service that restarts within a second, without an alarm', async () => {
    keep(
      await VaultAgent.start({
        ...vault,
        credentials: agentCredentialsFromBootstrap(vault, vault.keyFile),
        targets: [{ service: 'listener', directory }],
        logger: createLogger({ service: 'vault-agent', level: 'error' }),
      }),
    )
    for (let life = 1; life <= 3; life++) {
      const service = prepare({ credentials: source() })
      const identity = await service.create()
      expect(await service.count('ares_vault_credential_alarms_total')).toBe(0)
      expect(service.log()).not.toContain('ALARM')
      expect((await service.health.report()).ok).toBe(true)
      open.splice(open.indexOf(identity), 1)
      // No goodbye, as after a kill: the next life finds what this one has used.
    }
  }, 60_000)

  it('that was opened before it was seen, and is not followed by another, is an alarm after the grace', async () => {
    const { wrapToken } = await deliver()
    await client.unwrap(wrapToken)
    const credentials = source(1_000)
    await expect(credentials.next()).rejects.toBeInstanceOf(NoFreshCredential)
    await expect(credentials.next()).rejects.toThrow('was opened before, by an earlier life of this service')
    await sleep(1_050)
    await expect(credentials.next()).rejects.toBeInstanceOf(CredentialAlarm)
    await expect(credentials.next()).rejects.toBeInstanceOf(NoFreshCredential) // one alarm for one wrapping
    await deliver()
    await expect(credentials.next()).resolves.toMatchObject({ secretId: expect.any(String) })
  })

  it('of another service is an alarm at once, and is not opened', async () => {
    const { wrapToken } = await deliver('authorizer')
    await expect(source().next()).rejects.toThrow(/was not made for listener but by auth\/approle\/role\/authorizer/)
    await client.unwrap(wrapToken) // still whole
  })

  it('that somebody opens between the look and the opening is an alarm at once', async () => {
    const { wrapToken } = await deliver()
    // The moment cannot be met from outside.
    const raced = Object.assign(Object.create(client) as VaultClient, {
      unwrap: async (...args: Parameters<VaultClient['unwrap']>) => {
        await client.unwrap(wrapToken)
        return client.unwrap(...args)
      },
    })
    const credentials = credentialsFrom(directory, { client: raced, service: 'listener' })
    await expect(credentials.next()).rejects.toThrow('opened by somebody else at the very moment')
  })

  it('whose opening got no answer is no alarm: it was this service that opened it', async () => {
    await deliver()
    let lost = 0
    const losing = Object.assign(Object.create(client) as VaultClient, {
      unwrap: async (...args: Parameters<VaultClient['unwrap']>) => {
        const answer = await client.unwrap(...args)
        if (lost++ === 0) throw new VaultError('timeout', 'no whole answer in time')
        return answer
      },
    })
    const credentials = credentialsFrom(directory, { client: losing, service: 'listener', graceMs: 0 })
    await expect(credentials.next()).rejects.toMatchObject({ code: 'timeout' })
    await expect(credentials.next()).rejects.toThrow('was opened by this process, and the answer was lost')
    await deliver()
    await credentials.next()
  })

  it('that somebody opens while its service runs is an alarm, when the agent has replaced it', async () => {
    keep(
      await VaultAgent.start({
        ...vault,
        credentials: agentCredentialsFromBootstrap(vault, vault.keyFile),
        targets: [{ service: 'listener', directory }],
        deliverEveryMs: 100,
        logger: createLogger({ service: 'vault-agent', level: 'error' }),
      }),
    )
    const service = prepare({ credentials: source() })
    await service.create()
    const lies = () => readFile(path.join(directory, 'wrapped-secret-id'), 'utf8')
    await until(async () => client.wrappingLookup(await lies()).then(Boolean, () => false), 'a fresh one')
    expect(await service.count('ares_vault_credential_alarms_total')).toBe(0)
    // Whoever steals goes on: the first one may be replaced before the service has seen it at all.
    await until(async () => {
      await client.unwrap(await lies()).catch(() => undefined)
      return (await service.count('ares_vault_credential_alarms_total')) > 0
    }, 'the alarm')
    expect(service.log()).toContain('ALARM')
    expect(await service.check('vault-credential')).toMatchObject({
      ok: true,
      degraded: true,
      detail: expect.stringContaining('this service had not opened it: somebody else has'),
    })
  }, 60_000)

  it('that is replaced at half of its life, or after this service opened it, is no alarm', async () => {
    const credentials = source()
    await deliver()
    const halfALifeAgo = new Date(Date.now() - 301_000)
    await utimes(path.join(directory, 'wrapped-secret-id'), halfALifeAgo, halfALifeAgo)
    await credentials.inspect?.()
    await deliver()
    await credentials.inspect?.()
    await credentials.next()
    await deliver()
    await credentials.inspect?.()
    await deliver()
    await expect(credentials.inspect?.()).rejects.toBeInstanceOf(CredentialAlarm)
    await credentials.inspect?.() // one alarm for one wrapping
  })

  it('that lies there for longer than it lives means that nobody delivers, and is no alarm', async () => {
    const { wrapToken } = await deliver()
    await client.unwrap(wrapToken) // as good as run out
    const longAgo = new Date(Date.now() - 601_000)
    await utimes(path.join(directory, 'wrapped-secret-id'), longAgo, longAgo)
    await expect(source(0).next()).rejects.toThrow('has run out: whoever delivers credentials has not been here')
  })
})

/** @returns the exit code of `openssl s_client`, both sides with the clock `offSeconds` off */
async function opensslHandshake(leaf: Leaf, offSeconds: number): Promise<{ client: number | null }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ares-openssl-'))
  const file = (name: string) => path.join(folder, name)
  await writeFile(file('ca.pem'), leaf.caPem)
  await writeFile(file('leaf.pem'), leaf.chainPem)
  await writeFile(file('leaf.key'), leaf.keyPem, { mode: 0o600 })
  const common = ['-cert', file('leaf.pem'), '-key', file('leaf.key'), '-cert_chain', file('leaf.pem')]
  const trust = ['-CAfile', file('ca.pem'), '-verify_return_error']
  const clock = ['-attime', String(Math.floor(Date.now() / 1_000) + offSeconds)]
  const server = spawn('openssl', ['s_server', '-accept', '127.0.0.1:0', '-Verify', '3', ...common, ...trust, ...clock])
  try {
    let said = ''
    server.stdout.on('data', (data) => {
      said += data
    })
    await until(() => /ACCEPT 127\.0\.0\.1:\d+/.test(said), 'ACCEPT')
    const [, address] = /ACCEPT (\S+)/.exec(said) ?? []
    // In TLS 1.3 the client is done before the server has judged it; in 1.2 it hears the verdict.
    const client = spawn('openssl', [
      ...['s_client', '-tls1_2', '-connect', address!, '-servername', 'listener', '-verify_hostname', 'listener'],
      ...[...common, ...trust, ...clock],
    ])
    client.stdin.end()
    const [code] = (await once(client, 'exit')) as [number | null]
    return { client: code }
  } finally {
    server.kill('SIGKILL')
    await rm(folder, { recursive: true })
  }
}
