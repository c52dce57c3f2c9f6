import { newKeyAndCsr } from '@ares/chassis'
import type { Stack } from '@ares/embedded'
import { serviceCommonName } from '@ares/proto'
import { loginForBootstrap } from '@ares/vault'

/** A certificate with which the broker takes the floor's subscriber for a listener: both come in by the same door. */
export async function floorIdentity(stack: Stack): Promise<{ keyPem: string; certificatePem: string }> {
  const vault = await loginForBootstrap(stack.vault, stack.vault.keyFile)
  try {
    const name = serviceCommonName('listener')
    const { keyPem, csrPem } = await newKeyAndCsr(name)
    const { data } = await vault.write('pki_int/sign/service', { csr: csrPem, common_name: name })
    return { keyPem, certificatePem: `${data.certificate}\n${data.issuing_ca}\n` }
  } finally {
    vault.close()
  }
}
