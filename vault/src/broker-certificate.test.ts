import { stat } from 'node:fs/promises'
import type { VaultClient } from '@ares/chassis'
import { ensureBrokerCertificate } from './broker-certificate'
import { CertsVolume } from './certs-volume'
import { startTestVault, type TestVault } from './testing/test-vault'

let vault: TestVault
let volume: CertsVolume

beforeAll(async () => {
  vault = await startTestVault()
  volume = new CertsVolume({ dir: vault.certsDir })
}, 60_000)

afterAll(() => vault?.stop())

it('leaves alone what another wrote while it was looking', async () => {
  const old = (await volume.readBroker())!
  // Another makes a certificate while this one asks Vault whether the present one is still of the issuing CA.
  const elsewhere = new CertsVolume({ dir: vault.certsDir })
  const asked = new Proxy(vault.adminClient, {
    get: (client, name: keyof VaultClient) =>
      name !== 'read'
        ? client[name]
        : async (...args: Parameters<VaultClient['read']>) => {
            await ensureBrokerCertificate({ vault: client, volume: elsewhere, renewBelow: 1 })
            return client.read(...args)
          },
  })
  await ensureBrokerCertificate({ vault: asked, volume })
  const now = (await volume.readBroker())!
  expect(now.chainPem).not.toBe(old.chainPem)
  expect(now.keyPem).not.toBe(old.keyPem)
  expect((await stat(volume.brokerKeyFile)).mode & 0o7777).toBe(0o640)
})
