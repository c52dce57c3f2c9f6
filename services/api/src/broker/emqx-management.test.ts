import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createVaultClient, type VaultClient } from '@ares/chassis'
import { startTestVault, type TestVault } from '@ares/vault/testing'
import { EmqxManagement } from './emqx-management'

/** The answers were measured on EMQX 5.8.9; the whole path with the embedded broker is in infra/embedded. */
let vault: TestVault
let client: VaultClient
let broker: Server
let url: string
/** A status, with the code of an error; 0: none at all. */
let answer: (call: string, authorization: string) => number | readonly [status: number, code: string]
const calls: string[] = []

beforeAll(async () => {
  vault = await startTestVault()
  client = await vault.clientOf('api')
  broker = createServer((request, response) => {
    const call = `${request.method} ${request.url}`
    calls.push(call)
    const said = answer(call, request.headers.authorization ?? '')
    const [status, code] = typeof said === 'number' ? [said] : said
    if (status !== 0) response.writeHead(status).end(code && JSON.stringify({ code, message: '' }))
  })
  await new Promise<void>((listening) => broker.listen(0, '127.0.0.1', listening))
  url = `http://127.0.0.1:${(broker.address() as AddressInfo).port}`
}, 60_000)
afterAll(async () => {
  broker?.closeAllConnections()
  broker?.close()
  client?.close()
  await vault?.stop()
})
beforeEach(() => {
  calls.length = 0
})

const keyOf = (authorization: string) => Buffer.from(authorization.replace('Basic ', ''), 'base64').toString()

it('kicks with the key that the bootstrap gave to both', async () => {
  const line = readFileSync(vault.emqxApiKeyFile, 'utf8').trim()
  answer = (_, authorization) => (keyOf(authorization) === line ? 204 : 401)
  await new EmqxManagement({ url, vault: client }).kick('device/1')
  expect(calls).toEqual(['DELETE /api/v5/clients/device%2F1'])
})

it('a client that is not there is a success', async () => {
  answer = () => [404, 'CLIENTID_NOT_FOUND']
  await new EmqxManagement({ url, vault: client }).kick('nobody')
})

it('a call that the broker does not know is none', async () => {
  for (const unknown of [404, [404, 'API_NOT_EXIST']] as const) {
    answer = () => unknown
    await expect(new EmqxManagement({ url, vault: client }).kick('d1')).rejects.toThrow('it answers 404')
  }
})

it('reads the key again when the broker does not take it, once', async () => {
  let first = true
  answer = () => {
    const status = first ? 401 : 204
    first = false
    return status
  }
  const management = new EmqxManagement({ url, vault: client })
  await management.kick('d1')
  expect(calls).toHaveLength(2)
  answer = () => 401
  await expect(management.kick('d1')).rejects.toMatchObject({
    code: 'broker_unavailable',
    message: expect.stringContaining('run the bootstrap again'),
  })
})

it('goes on with the key it has while Vault is away', async () => {
  answer = () => 204
  let away = false
  const nobody = createVaultClient({ address: 'https://127.0.0.1:1' })
  const management = new EmqxManagement({ url, vault: { read: (path) => (away ? nobody : client).read(path) } })
  await management.prepare()
  away = true
  await management.kick('d1')
  const without = new EmqxManagement({ url, vault: nobody })
  await expect(without.kick('d1')).rejects.toThrow('its key cannot be read (Vault: unreachable)')
})

it('says what is wrong, without the key', async () => {
  answer = () => 0
  const hanging = new EmqxManagement({ url, vault: client, timeoutMs: 200 })
  await expect(hanging.kick('d1')).rejects.toThrow('it does not answer in time')
  const nowhere = new EmqxManagement({ url: 'http://127.0.0.1:1', vault: client })
  await expect(nowhere.kick('d1')).rejects.toThrow(/^The broker cannot be managed now: /)
  const unset = new EmqxManagement({ url: undefined, vault: client })
  await expect(unset.kick('d1')).rejects.toThrow('ARES_EMQX_API_URL')
  answer = () => 500
  await expect(new EmqxManagement({ url, vault: client }).kick('d1')).rejects.toThrow('it answers 500')
})
